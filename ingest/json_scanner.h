// Tokens of JSON in memory that anybody may have written: whatever is unusual throws `Declined`.
//
// Nothing is read at or behind `end`, nothing calls itself, and what is accepted is a subset of
// what msgspec accepts, with the same value.

#pragma once

#include <charconv>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory_resource>
#include <string>

// The body is not surely right; who decides that reads it by other means.
struct Declined {};

class Scanner {
  public:
    Scanner(const char* begin, const char* end) : at_(begin), end_(end) {}

    const char* at() const { return at_; }

    void skip_space() {
        while (at_ < end_ && (*at_ == ' ' || *at_ == '\t' || *at_ == '\n' || *at_ == '\r')) ++at_;
    }

    bool take(char wanted) {
        if (at_ == end_ || *at_ != wanted) return false;
        ++at_;
        return true;
    }

    bool take(const std::string& wanted) {
        if (rest() < wanted.size() || std::memcmp(at_, wanted.data(), wanted.size()) != 0) {
            return false;
        }
        at_ += wanted.size();
        return true;
    }

    void expect(char wanted) {
        if (!take(wanted)) throw Declined{};
    }

    bool take_null() {
        if (rest() < 4 || std::memcmp(at_, "null", 4) != 0) return false;
        at_ += 4;
        return true;
    }

    void expect_end() {
        skip_space();
        if (at_ != end_) throw Declined{};
    }

    // Puts a string, of which nothing is read yet, behind `out`; gives its length in characters.
    int64_t text(std::pmr::string& out) {
        expect('"');
        const char* start = at_;
        skip_plain();
        int64_t n_chars = at_ - start;
        out.append(start, at_);
        while (!take('"')) {
            if (at_ == end_) throw Declined{};
            const auto byte = static_cast<unsigned char>(*at_);
            if (byte == '\\') {
                escape(out);
            } else if (byte >= 0x80) {
                sequence(out);
            } else if (byte < 0x20) {
                throw Declined{};
            } else {
                start = at_;
                skip_plain();
                n_chars += at_ - start - 1;
                out.append(start, at_);
            }
            ++n_chars;
        }
        return n_chars;
    }

    // A string of exactly `length` bytes without escapes, which the caller looks at.
    const char* plain_text(int64_t length) {
        expect('"');
        const char* start = at_;
        if (static_cast<int64_t>(rest()) <= length) throw Declined{};
        at_ += length;
        expect('"');
        return start;
    }

    // A finite number without a sign.
    double amount() {
        const char* start = at_;
        whole();
        if (take('.')) digits();
        if (at_ < end_ && (*at_ == 'e' || *at_ == 'E')) {
            ++at_;
            if (at_ < end_ && (*at_ == '+' || *at_ == '-')) ++at_;
            digits();
        }
        double value = 0;
        const auto [stop, error] = std::from_chars(start, at_, value);
        if (error != std::errc() || stop != at_ || !std::isfinite(value)) throw Declined{};
        return value;
    }

    // A whole number without a sign, at most `greatest`, which is below 10^18.
    int64_t count(int64_t greatest) {
        const char* start = at_;
        whole();
        if (at_ - start > 18) throw Declined{};
        int64_t value = 0;
        for (const char* digit = start; digit < at_; ++digit) value = 10 * value + (*digit - '0');
        if (value > greatest || (at_ < end_ && (*at_ == '.' || *at_ == 'e' || *at_ == 'E'))) {
            throw Declined{};
        }
        return value;
    }

    bool is_digit() const { return at_ < end_ && *at_ >= '0' && *at_ <= '9'; }

    // `n_digits` decimal digits as a number, at most `greatest`.
    int64_t number(int n_digits, int64_t greatest) {
        int64_t value = 0;
        for (int digit = 0; digit < n_digits; ++digit) {
            if (!is_digit()) throw Declined{};
            value = 10 * value + (*at_++ - '0');
        }
        if (value > greatest) throw Declined{};
        return value;
    }

    // Passes over an object or a string by its brackets and quotes; who reads it checks the rest.
    void skip_value(int max_depth) {
        int depth = 0;
        do {
            if (at_ == end_) throw Declined{};
            const char byte = *at_++;
            if (byte == '"') {
                skip_string();
            } else if (byte == '{' || byte == '[') {
                if (++depth > max_depth) throw Declined{};
            } else if (byte == '}' || byte == ']') {
                --depth;
            } else if (depth == 0) {
                throw Declined{};
            }
        } while (depth > 0);
        if (depth < 0) throw Declined{};
    }

  private:
    const char* at_;
    const char* const end_;

    size_t rest() const { return static_cast<size_t>(end_ - at_); }

    // To the next byte that is no ASCII character of its own: a quote, a backslash, a control
    // character or one above 0x7f. Eight bytes at once: the top bit of each says so.
    void skip_plain() {
        constexpr uint64_t ones = 0x0101010101010101, tops = 0x8080808080808080;
        while (rest() >= 8) {
            uint64_t bytes;
            std::memcpy(&bytes, at_, 8);
            const uint64_t quotes = bytes ^ (ones * '"'), slashes = bytes ^ (ones * '\\');
            const uint64_t odd = ((quotes - ones) & ~quotes) | ((slashes - ones) & ~slashes) |
                                 ((bytes - ones * 0x20) & ~bytes) | bytes;
            if (odd & tops) break;
            at_ += 8;
        }
        while (at_ < end_) {
            const auto byte = static_cast<unsigned char>(*at_);
            if (byte == '"' || byte == '\\' || byte < 0x20 || byte >= 0x80) break;
            ++at_;
        }
    }

    void skip_string() {
        while (true) {
            if (at_ == end_) throw Declined{};
            const char byte = *at_++;
            if (byte == '"') return;
            if (byte == '\\') {
                if (at_ == end_) throw Declined{};
                ++at_;
            }
        }
    }

    void digits() {
        if (!is_digit()) throw Declined{};
        while (is_digit()) ++at_;
    }

    void whole() {
        if (take('0')) {
            if (is_digit()) throw Declined{};
        } else {
            digits();
        }
    }

    // One character of more than one byte (Unicode, table 3-7).
    void sequence(std::pmr::string& out) {
        const auto first = static_cast<unsigned char>(*at_);
        const int length = first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
        unsigned char least = 0x80, most = 0xbf;  // of the second byte
        if (first == 0xe0) least = 0xa0;
        if (first == 0xed) most = 0x9f;
        if (first == 0xf0) least = 0x90;
        if (first == 0xf4) most = 0x8f;
        if (first < 0xc2 || first > 0xf4 || rest() < static_cast<size_t>(length)) throw Declined{};
        for (int place = 1; place < length; ++place) {
            const auto byte = static_cast<unsigned char>(at_[place]);
            if (byte < least || byte > most) throw Declined{};
            least = 0x80;
            most = 0xbf;
        }
        out.append(at_, at_ + length);
        at_ += length;
    }

    void escape(std::pmr::string& out) {
        ++at_;  // the backslash
        if (at_ == end_) throw Declined{};
        switch (*at_++) {
            case '"': out.push_back('"'); return;
            case '\\': out.push_back('\\'); return;
            case '/': out.push_back('/'); return;
            case 'b': out.push_back('\b'); return;
            case 'f': out.push_back('\f'); return;
            case 'n': out.push_back('\n'); return;
            case 'r': out.push_back('\r'); return;
            case 't': out.push_back('\t'); return;
            case 'u': break;
            default: throw Declined{};
        }
        uint32_t code = unit();
        if (code >= 0xdc00 && code <= 0xdfff) throw Declined{};
        if (code >= 0xd800 && code <= 0xdbff) {
            expect('\\');
            expect('u');
            const uint32_t low = unit();
            if (low < 0xdc00 || low > 0xdfff) throw Declined{};
            code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
        }
        encode(out, code);
    }

    // Four hexadecimal digits.
    uint32_t unit() {
        if (rest() < 4) throw Declined{};
        uint32_t code = 0;
        const auto [stop, error] = std::from_chars(at_, at_ + 4, code, 16);
        if (error != std::errc() || stop != at_ + 4) throw Declined{};
        at_ += 4;
        return code;
    }

    static void encode(std::pmr::string& out, uint32_t code) {
        const auto more = [&](int shift) {
            out.push_back(static_cast<char>(0x80 | ((code >> shift) & 0x3f)));
        };
        if (code < 0x80) {
            out.push_back(static_cast<char>(code));
        } else if (code < 0x800) {
            out.push_back(static_cast<char>(0xc0 | (code >> 6)));
            more(0);
        } else if (code < 0x10000) {
            out.push_back(static_cast<char>(0xe0 | (code >> 12)));
            more(6);
            more(0);
        } else {
            out.push_back(static_cast<char>(0xf0 | (code >> 18)));
            more(12);
            more(6);
            more(0);
        }
    }
};
