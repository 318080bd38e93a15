// Times as text: RFC 3339 in the forms that clients write, to microseconds since 1970.

#pragma once

#include <cstdint>

#include "json_scanner.h"

constexpr int64_t SECOND = 1'000'000;
constexpr int64_t DAY = 86'400 * SECOND;

inline int64_t days_of(int64_t year, int64_t month) {
    constexpr int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    const bool is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    return days[month - 1] + (month == 2 && is_leap);
}

// Years of 365 days, a leap day for each fourth but most centuries; March is the first month.
inline int64_t days_since_1970(int64_t year, int64_t month, int64_t day) {
    if (month < 3) --year;
    const int64_t day_of_year = (153 * (month + (month < 3 ? 9 : -3)) + 2) / 5 + day - 1;
    return year * 365 + year / 4 - year / 100 + year / 400 + day_of_year - 719'468;
}

inline int64_t fraction(Scanner& json) {
    if (!json.take('.')) return 0;
    int64_t part = 0;
    for (int64_t unit = SECOND / 10; unit > 0; unit /= 10) {
        part += unit * json.number(1, 9);
        if (!json.is_digit()) return part;
    }
    throw Declined{};  // more than microseconds
}

// How far the zone is ahead of UTC; reads the closing quote too.
inline int64_t zone(Scanner& json) {
    int64_t offset = 0;
    if (!json.take('Z')) {
        const bool is_ahead = json.take('+');
        if (!is_ahead) json.expect('-');
        const int64_t hours = json.number(2, 23);
        json.expect(':');
        offset = (hours * 60 + json.number(2, 59)) * 60 * SECOND * (is_ahead ? 1 : -1);
    }
    json.expect('"');
    return offset;
}

// `2026-01-31T12:00:00.123456Z`, or `+01:00` for the Z.
inline int64_t time_of_text(Scanner& json) {
    json.expect('"');
    const int64_t year = json.number(4, 9999);
    json.expect('-');
    const int64_t month = json.number(2, 12);
    json.expect('-');
    const int64_t day = json.number(2, 31);
    json.expect('T');
    const int64_t hour = json.number(2, 23);
    json.expect(':');
    const int64_t minute = json.number(2, 59);
    json.expect(':');
    const int64_t second = json.number(2, 59);
    if (month < 1 || day < 1 || day > days_of(year, month)) throw Declined{};
    const int64_t passed = (hour * 60 + minute) * 60 + second;
    const int64_t moment = days_since_1970(year, month, day) * DAY + passed * SECOND + fraction(json);
    return moment - zone(json);
}
