// The columns of a request's events, and how they leave as one array of Arrow's.

#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "arrow_columns.h"

// In the order of `ingest.contract.SentEvent`; texts of items follow.
enum Field {
    EVENT_ID, EVENT_NAME, OCCURRED_AT, VISITOR_ID, USER_ID, SESSION_ID, ITEMS, ITEM_LIST_ID,
    RECOMMENDATION_ID, VALUE, CURRENCY, PAGE_URL, REFERRER, USER_AGENT, CONSENT, EXTRA, N_FIELDS
};
enum ItemField { ITEM_ID, ITEM_NAME, ITEM_CATEGORY, N_ITEM_TEXTS, PRICE = 3, QUANTITY, INDEX, N_ITEM_FIELDS };

class Columns {
#ifdef SHALLOP_EACH_ALLOCATION  // lets a sanitizer see where each piece ends
    std::pmr::memory_resource* const memory_ = std::pmr::new_delete_resource();
#else
    std::pmr::monotonic_buffer_resource room_;
    std::pmr::memory_resource* const memory_ = &room_;
#endif

  public:
    // `n_bytes` is about what they will take.
    explicit Columns([[maybe_unused]] size_t n_bytes)
#ifndef SHALLOP_EACH_ALLOCATION
        : room_(n_bytes)
#endif
    {
    }

    int64_t n_events = 0, n_items = 0;
    std::pmr::vector<Texts> texts{N_FIELDS, memory_};  // those of fields that are no text stay empty
    Numbers<int64_t> occurred_at{memory_}, received_at{memory_};
    Numbers<double> value{memory_};
    Lists items{memory_};
    std::pmr::vector<Texts> item_texts{N_ITEM_TEXTS, memory_};
    Numbers<double> price{memory_};
    Numbers<int32_t> quantity{memory_}, index{memory_};
    Texts ip_prefix{memory_}, source{memory_};
    Numbers<int16_t> schema_version{memory_};
};

// In the order of `warehouse.contracts.EVENT_ITEM` and RAW_EVENT_SCHEMA.
inline void export_all(const std::shared_ptr<Columns>& owned, ArrowArray* out) {
    const Columns& all = *owned;
    const auto text = [&](int field) { return exported(owned, all.texts[field]); };
    ArrowArray item{};
    export_columns(&item, owned, all.n_items,
                   {exported(owned, all.item_texts[ITEM_ID]),
                    exported(owned, all.item_texts[ITEM_NAME]),
                    exported(owned, all.item_texts[ITEM_CATEGORY]), exported(owned, all.price),
                    exported(owned, all.quantity), exported(owned, all.index)});
    export_columns(out, owned, all.n_events,
                   {text(EVENT_ID), text(EVENT_NAME), exported(owned, all.occurred_at),
                    exported(owned, all.received_at), text(VISITOR_ID), text(USER_ID),
                    text(SESSION_ID), exported(owned, all.items, {item}), text(ITEM_LIST_ID),
                    text(RECOMMENDATION_ID), exported(owned, all.value), text(CURRENCY),
                    text(PAGE_URL), text(REFERRER), text(USER_AGENT),
                    exported(owned, all.ip_prefix), text(CONSENT), exported(owned, all.source),
                    exported(owned, all.schema_version), text(EXTRA)});
}
