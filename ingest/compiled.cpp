// What `ingest.compiled` compiles: functions that Python calls. None lets an exception out.

#include <cstdint>
#include <exception>
#include <limits>

#include "event_reader.h"
#include "session_rows.h"

// The events of a body as an array of RAW_EVENT_SCHEMA's struct, which the caller releases: 1, or 2
// where `extra` is JSON that is not looked at yet. 0: not surely right, and `out` is untouched.
extern "C" int32_t read_events(const Rules* rules, const Request* request, const char* body,
                               int64_t length, ArrowArray* out) {
    try {
        if (length > std::numeric_limits<int32_t>::max()) return 0;
        EventReader reader(*rules, *request, body, length);
        const auto columns = reader.read();
        export_all(columns, out);
        return reader.has_extra() ? 2 : 1;
    } catch (const Declined&) {
        return 0;
    } catch (const std::exception&) {  // no memory for it
        return 0;
    }
}

// What the events of some arrays (SCHEMA of `ingest.session_columns`) add to their sessions, as an
// array of its ROWS, which the caller releases: 1. 0: there is no memory for it, `out` is untouched.
extern "C" int32_t session_rows(const ArrowArray* const* events, int64_t n_arrays,
                                const Text* step_names, ArrowArray* out) {
    try {
        Sessions sessions(step_names->view());
        for (int64_t array = 0; array < n_arrays; ++array) sessions.add(*events[array]);
        sessions.export_to(out);
        return 1;
    } catch (const Declined&) {
        return 0;
    } catch (const std::exception&) {
        return 0;
    }
}
