// Reads bodies from a file (4 bytes of length, then the body) and folds what was accepted, under
// sanitizers: each body lies in a piece of memory of exactly its length. Prints how many were read.

#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>

#include "compiled.cpp"

int main(int, char** arguments) {
    std::ifstream file(arguments[1], std::ios::binary);
    const std::string all((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
    const std::string names = "view_item\nadd_to_cart\npurchase\npage_view", agent = "Mozilla/5.0",
                      source = "json", steps = "view_item\nadd_to_cart\npurchase";
    const auto text = [](const std::string& one) {
        return Text{one.data(), static_cast<int64_t>(one.size())};
    };
    Rules rules{};
    rules.names = text(names);
    rules.n_item_names = 3;
    for (int64_t& most : rules.max_chars) most = 2048;
    rules.max_events = 1000;
    rules.max_items = 200;
    rules.keeps_agents = 1;
    const Request request{1'772'000'000'000'000, 1'772'000'000'000'000, text(agent), {nullptr, 0},
                          text(source)};
    int n_read = 0;
    for (size_t at = 0; at + 4 <= all.size();) {
        uint32_t length;
        std::memcpy(&length, all.data() + at, 4);
        const std::unique_ptr<char[]> body(new char[length]);
        std::memcpy(body.get(), all.data() + at + 4, length);
        at += 4 + length;
        ArrowArray events{}, rows{};
        if (!read_events(&rules, &request, body.get(), length, &events)) continue;
        ++n_read;
        ArrowArray wanted = events;
        ArrowArray* columns[] = {events.children[0], events.children[1], events.children[2],
                                 events.children[3], events.children[4], events.children[6],
                                 events.children[7]};
        wanted.children = columns;
        const ArrowArray* arrays[] = {&wanted};
        const Text step_names = text(steps);
        if (!session_rows(arrays, 1, &step_names, &rows)) return 1;
        rows.release(&rows);
        events.release(&events);
    }
    std::printf("%d\n", n_read);
}
