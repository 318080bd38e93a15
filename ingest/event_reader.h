// A request's JSON events into Arrow columns, where all of them are surely right.
//
// It says what `ingest.events` says of a body in which every event keeps the rules of
// `ingest.contract` and `ingest.rules` (tested equal). Anything else, and anything that is only
// unusual, is declined: Python then reads the body and judges. So a mistake here that declines too
// much costs time and nothing else. See `ingest.reader`.

#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "event_columns.h"
#include "json_scanner.h"
#include "json_time.h"

// What all requests have in common. Times are microseconds since 1970.
struct Rules {
    Text names;            // of events, one a line; those that need an item come first
    int64_t n_item_names;
    int64_t max_chars[N_FIELDS + N_ITEM_TEXTS];  // of texts
    int64_t max_events, max_items;
    int64_t earliest;
    int64_t schema_version;
    int64_t keeps_agents;  // as they were sent
};

// What a request adds to each of its events; no text is one of no bytes.
struct Request {
    int64_t received_at, latest;
    Text agent, ip_prefix, source;
};

constexpr int MAX_EXTRA_DEPTH = 32;
constexpr int64_t MAX_COUNT = std::numeric_limits<int32_t>::max();

using Names = std::vector<std::string>;  // with their quotes

const Names FIELDS = {
    "\"event_id\"", "\"event_name\"", "\"occurred_at\"", "\"visitor_id\"", "\"user_id\"",
    "\"session_id\"", "\"items\"", "\"item_list_id\"", "\"recommendation_id\"", "\"value\"",
    "\"currency\"", "\"page_url\"", "\"referrer\"", "\"user_agent\"", "\"consent\"", "\"extra\"",
};
const Names ITEM_FIELDS = {
    "\"item_id\"", "\"item_name\"", "\"item_category\"", "\"price\"", "\"quantity\"", "\"index\"",
};

// Which names of an object come next: as a rule those that came in the one before.
class Keys {
  public:
    explicit Keys(const Names& names) : names_(names) {
        for (size_t place = 0; place < names.size(); ++place) order_[place] = place;
    }

    size_t next(Scanner& json, size_t place) {
        if (place >= names_.size()) throw Declined{};
        if (json.take(names_[order_[place]])) return order_[place];
        for (size_t field = 0; field < names_.size(); ++field) {
            if (json.take(names_[field])) return order_[place] = field;
        }
        throw Declined{};
    }

  private:
    const Names& names_;
    std::array<size_t, N_FIELDS> order_{};
};

class EventReader {
  public:
    EventReader(const Rules& rules, const Request& request, const char* body, int64_t length)
        : rules_(rules), request_(request), json_(body, body + length),
          columns_(std::make_shared<Columns>(static_cast<size_t>(length) * 4)) {
        for (const std::string_view name : lines(rules.names.view())) {
            event_names_.push_back("\"" + std::string(name) + "\"");
        }
        if (event_names_.empty()) throw Declined{};
    }

    std::shared_ptr<Columns> read() {
        json_.skip_space();
        json_.expect('[');
        do {
            json_.skip_space();
            if (columns_->n_events == rules_.max_events) throw Declined{};
            event();
            ++columns_->n_events;
            json_.skip_space();
        } while (json_.take(','));
        json_.expect(']');
        json_.expect_end();
        return columns_;
    }

    bool has_extra() const { return has_extra_; }

  private:
    const Rules& rules_;
    const Request& request_;
    Scanner json_;
    Names event_names_;
    Keys keys_{FIELDS}, item_keys_{ITEM_FIELDS};
    std::shared_ptr<Columns> columns_;
    size_t name_ = 0;       // of the last event
    int64_t occurred_at_ = 0;
    bool starts_with_id_ = false;  // the event's first item
    bool has_extra_ = false;

    // Calls `value` for each field of an object; its bit is set where that says there is one.
    template <typename Value>
    uint32_t fields(Keys& keys, Value value) {
        uint32_t given = 0, seen = 0;
        json_.expect('{');
        json_.skip_space();
        if (json_.take('}')) return given;
        for (size_t place = 0;; ++place) {
            const size_t field = keys.next(json_, place);
            const uint32_t bit = uint32_t{1} << field;
            if (seen & bit) throw Declined{};
            seen |= bit;
            json_.skip_space();
            json_.expect(':');
            json_.skip_space();
            if (!json_.take_null() && value(field)) given |= bit;
            json_.skip_space();
            if (json_.take('}')) return given;
            json_.expect(',');
            json_.skip_space();
        }
    }

    void event() {
        Columns& all = *columns_;
        const int64_t first_item = all.n_items;
        const uint32_t given = fields(keys_, [this](size_t field) { return value(field); });
        const auto has = [given](int field) { return (given >> field & 1) != 0; };
        if (!has(EVENT_ID) || !has(EVENT_NAME) || !(has(SESSION_ID) || has(VISITOR_ID))) {
            throw Declined{};
        }
        const bool needs_item = static_cast<int64_t>(name_) < rules_.n_item_names;
        if (needs_item && !(all.n_items > first_item && starts_with_id_)) throw Declined{};
        all.occurred_at.add(has(OCCURRED_AT) ? occurred_at_ : request_.received_at);
        all.received_at.add(request_.received_at);
        all.items.end_row(all.n_items);
        if (!has(VALUE)) all.value.end_row(false);
        for (const int field : {EVENT_ID, EVENT_NAME, VISITOR_ID, USER_ID, SESSION_ID, ITEM_LIST_ID,
                                RECOMMENDATION_ID, CURRENCY, PAGE_URL, REFERRER, CONSENT, EXTRA}) {
            all.texts[field].end_row(has(field));
        }
        if (has(USER_AGENT)) {
            all.texts[USER_AGENT].end_row(true);
        } else {
            constant(all.texts[USER_AGENT], request_.agent);
        }
        constant(all.ip_prefix, request_.ip_prefix);
        constant(all.source, request_.source);
        all.schema_version.add(static_cast<int16_t>(rules_.schema_version));
    }

    // Reads a field of an event; false where what was sent is kept as nothing.
    bool value(size_t field) {
        Texts& texts = columns_->texts[field];
        switch (field) {
            case EVENT_ID: event_id(texts.data()); return true;
            case EVENT_NAME: event_name(texts.data()); return true;
            case OCCURRED_AT: occurred_at_ = time(); return true;
            case ITEMS: return items();
            case VALUE: columns_->value.add(json_.amount()); return true;
            case EXTRA: extra(texts.data()); return true;
            case VISITOR_ID: case USER_ID: case SESSION_ID:
                text(texts, rules_.max_chars[field]);
                return !texts.is_row_empty();
            case USER_AGENT:
                text(texts, rules_.max_chars[field]);
                if (texts.is_row_empty()) return false;
                if (!rules_.keeps_agents) throw Declined{};
                return true;
            default: text(texts, rules_.max_chars[field]); return true;
        }
    }

    bool items() {
        const int64_t first = columns_->n_items;
        json_.expect('[');
        json_.skip_space();
        if (json_.take(']')) return false;
        do {
            json_.skip_space();
            if (columns_->n_items - first == rules_.max_items) throw Declined{};
            const bool has_id = item();
            if (columns_->n_items++ == first) starts_with_id_ = has_id;
            json_.skip_space();
        } while (json_.take(','));
        json_.expect(']');
        return true;
    }

    // Whether it has an id.
    bool item() {
        Columns& all = *columns_;
        const uint32_t given = fields(item_keys_, [this](size_t field) { return item_value(field); });
        const auto has = [given](int field) { return (given >> field & 1) != 0; };
        for (int field = 0; field < N_ITEM_TEXTS; ++field) {
            all.item_texts[field].end_row(has(field));
        }
        if (!has(PRICE)) all.price.end_row(false);
        if (!has(QUANTITY)) all.quantity.end_row(false);
        if (!has(INDEX)) all.index.end_row(false);
        return has(ITEM_ID);
    }

    bool item_value(size_t field) {
        Columns& all = *columns_;
        switch (field) {
            case PRICE: all.price.add(json_.amount()); break;
            case QUANTITY: all.quantity.add(static_cast<int32_t>(json_.count(MAX_COUNT))); break;
            case INDEX: all.index.add(static_cast<int32_t>(json_.count(MAX_COUNT))); break;
            default: {
                Texts& texts = all.item_texts[field];
                text(texts, rules_.max_chars[N_FIELDS + field]);
                if (field == ITEM_ID && texts.is_row_empty()) throw Declined{};
            }
        }
        return true;
    }

    void text(Texts& texts, int64_t max_chars) {
        if (json_.text(texts.data()) > max_chars) throw Declined{};
    }

    // A UUID in lower case.
    void event_id(std::pmr::string& out) {
        constexpr std::string_view form = "00000000-0000-0000-0000-000000000000";
        const char* id = json_.plain_text(form.size());
        char lowered[form.size()];
        bool is_id = true;
        for (size_t place = 0; place < form.size(); ++place) {
            const char one = id[place];
            const char low = one >= 'A' && one <= 'F' ? static_cast<char>(one + ('a' - 'A')) : one;
            const bool is_hex = (low >= '0' && low <= '9') || (low >= 'a' && low <= 'f');
            is_id &= form[place] == '-' ? low == '-' : is_hex;
            lowered[place] = low;
        }
        if (!is_id) throw Declined{};
        out.append(lowered, form.size());
    }

    void event_name(std::pmr::string& out) {
        if (!json_.take(event_names_[name_])) {
            name_ = 0;
            while (!json_.take(event_names_[name_])) {
                if (++name_ == event_names_.size()) {
                    name_ = 0;
                    throw Declined{};
                }
            }
        }
        const std::string& quoted = event_names_[name_];
        out.append(quoted, 1, quoted.size() - 2);
    }

    // The JSON as it is; Python reads it.
    void extra(std::pmr::string& out) {
        const char* start = json_.at();
        json_.skip_value(MAX_EXTRA_DEPTH);
        out.append(start, json_.at());
        has_extra_ = true;
    }

    static void constant(Texts& texts, const Text& text) {
        if (text.length) texts.data().append(text.view());
        texts.end_row(text.length != 0);
    }

    // Text, or whole milliseconds since 1970.
    int64_t time() {
        const int64_t moment = json_.is_digit() ? json_.count(1'000'000'000'000'000) * 1'000
                                                : time_of_text(json_);
        if (moment < rules_.earliest || moment > request_.latest) throw Declined{};
        return moment;
    }
};
