// What events add to live sessions: what `sessions.add` says of single events (tested equal).

#pragma once

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "arrow_columns.h"

// Arrays that Arrow gave us, as they may be sliced.
class Given {
  public:
    explicit Given(const ArrowArray& array) : array_(array) {}

    bool is_valid(int64_t row) const {
        const auto* bits = static_cast<const uint8_t*>(array_.buffers[0]);
        const int64_t place = array_.offset + row;
        return bits == nullptr || (bits[place / 8] >> (place % 8) & 1) != 0;
    }

    // Where the text or the list of a row begins; that of the row behind is where it ends.
    int32_t start(int64_t row) const {
        return static_cast<const int32_t*>(array_.buffers[1])[array_.offset + row];
    }

    // Of no text is the empty one.
    std::string_view text(int64_t row) const {
        if (!is_valid(row)) return {};
        const auto* data = static_cast<const char*>(array_.buffers[2]);
        return {data + start(row), static_cast<size_t>(start(row + 1) - start(row))};
    }

    int64_t number(int64_t row) const {
        return static_cast<const int64_t*>(array_.buffers[1])[array_.offset + row];
    }

    Given child(int64_t place) const { return Given(*array_.children[place]); }
    int64_t offset() const { return array_.offset; }

  private:
    const ArrowArray& array_;
};

class Sessions {
  public:
    explicit Sessions(std::string_view step_names) : step_names_(lines(step_names)) {}

    // Events with the columns of `session_columns.SCHEMA`.
    void add(const ArrowArray& array) {
        if (array.offset != 0) throw Declined{};  // a slice of its children, which they know of
        const Given events(array);
        const Given ids = events.child(0), names = events.child(1), times = events.child(2),
                    received = events.child(3), visitors = events.child(4),
                    session_ids = events.child(5), lists = events.child(6), items = lists.child(0),
                    item_ids = items.child(0);
        for (int64_t row = 0; row < array.length; ++row) {
            const std::string_view id = session_ids.text(row), visitor = visitors.text(row);
            Session& session = session_of(id, visitor);
            session.seen_at = std::max(session.seen_at, received.number(row));
            if (!visitor.empty()) session.visitor = visitor;
            const std::string_view name = names.text(row);
            if (std::find(step_names_.begin(), step_names_.end(), name) == step_names_.end()) {
                // Without a session_id, what is no step keeps the visitor's session alive.
                if (id.empty()) step(session.steps, times.number(row), ids.text(row), 0, {});
                continue;
            }
            if (!lists.is_valid(row)) continue;
            const int32_t first = lists.start(row), end = lists.start(row + 1);
            for (int32_t item = first; item < end; ++item) {
                const int64_t place = items.offset() + item;
                const std::string_view item_id = item_ids.text(place);
                if (!items.is_valid(item) || item_id.empty()) continue;
                step(session.steps, times.number(row), ids.text(row), item - first, item_id);
                session.has_items = true;
            }
        }
    }

    // In the order of their keys.
    void export_to(ArrowArray* out) {
        std::vector<std::pair<std::string_view, const Session*>> sorted;
        for (const auto& [key, session] : sessions_) sorted.emplace_back(key, &session);
        std::sort(sorted.begin(), sorted.end());
        const auto rows = std::make_shared<Rows>();
        for (const auto& [key, session] : sorted) {
            rows->key.add(key);
            rows->visitor.data().append(session->visitor);
            rows->visitor.end_row(!session->visitor.empty());
            rows->seen_at.add(session->seen_at);
            rows->steps.add(session->steps);
            rows->has_items.add(session->has_items);
        }
        export_columns(out, rows, static_cast<int64_t>(sorted.size()),
                       {exported(rows, rows->key), exported(rows, rows->visitor),
                        exported(rows, rows->seen_at), exported(rows, rows->steps),
                        exported(rows, rows->has_items)});
    }

  private:
    struct Session {
        std::string visitor, steps;
        int64_t seen_at = 0;
        bool has_items = false;
    };

    struct Rows {
        std::pmr::memory_resource* const memory = std::pmr::get_default_resource();
        Texts key{memory}, visitor{memory}, steps{memory};
        Numbers<int64_t> seen_at{memory};
        Numbers<int8_t> has_items{memory};
    };

    const std::vector<std::string_view> step_names_;
    std::unordered_map<std::string, Session> sessions_;
    std::string key_;

    Session& session_of(std::string_view id, std::string_view visitor) {
        key_.assign(id.empty() ? "v:" : "s:");
        key_.append(id.empty() ? visitor : id);
        return sessions_[key_];
    }

    static void step(std::string& out, int64_t moment, std::string_view event_id, int64_t place,
                     std::string_view item_id) {
        out.push_back('[');
        number(out, moment);
        out.append(",\"");
        out.append(event_id);
        out.append("\",");
        number(out, place);
        out.append(",\"");
        quoted(out, item_id);
        out.append("\"]\n");
    }

    static void number(std::string& out, int64_t value) {
        char digits[24];
        const auto [end, error] = std::to_chars(digits, digits + sizeof digits, value);
        out.append(digits, end);
    }

    // As JSON has it between its quotes.
    static void quoted(std::string& out, std::string_view text) {
        constexpr char hex[] = "0123456789abcdef";
        for (const char one : text) {
            const auto byte = static_cast<unsigned char>(one);
            if (byte == '"' || byte == '\\') {
                out.push_back('\\');
                out.push_back(one);
            } else if (byte < 0x20) {
                out.append("\\u00");
                out.push_back(hex[byte >> 4]);
                out.push_back(hex[byte & 15]);
            } else {
                out.push_back(one);
            }
        }
    }
};
