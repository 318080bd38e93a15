// Columns as Arrow lays them out in memory, and their way out of here (Arrow's C data interface).
//
// https://arrow.apache.org/docs/format/CDataInterface.html

#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <memory_resource>
#include <string>
#include <string_view>
#include <vector>

#include "json_scanner.h"

struct Text {
    const char* data;
    int64_t length;

    std::string_view view() const { return {data, static_cast<size_t>(length)}; }
};

struct ArrowArray {
    int64_t length, null_count, offset, n_buffers, n_children;
    const void** buffers;
    ArrowArray** children;
    ArrowArray* dictionary;
    void (*release)(ArrowArray*);
    void* private_data;
};

// The addresses of a column's parts: which rows are valid, where texts and lists end, the values.
struct Buffers {
    std::array<const void*, 3> parts;
    int64_t n_parts;
};

// What columns take their memory from, so that thousands of small pieces are had and let go at once.
using Memory = std::pmr::polymorphic_allocator<std::byte>;

// One of Arrow's bits for each row, 1 where it holds a value.
class Validity {
  public:
    explicit Validity(Memory memory) : bits_(memory) {}

    void push(bool is_valid) {
        if (!is_valid && n_null_++ == 0) bits_.assign(static_cast<size_t>(n_rows_ / 8 + 1), 0xff);
        if (n_null_) set(is_valid);
        ++n_rows_;
    }

    int64_t n_rows() const { return n_rows_; }
    int64_t n_null() const { return n_null_; }
    const void* buffer() const { return n_null_ ? bits_.data() : nullptr; }

  private:
    std::pmr::vector<uint8_t> bits_;  // from the first null on
    int64_t n_rows_ = 0, n_null_ = 0;

    void set(bool is_valid) {
        const auto byte = static_cast<size_t>(n_rows_ / 8);
        if (byte == bits_.size()) bits_.push_back(0xff);
        if (!is_valid) bits_[byte] &= static_cast<uint8_t>(~(1u << (n_rows_ % 8)));
    }
};

class Texts {
  public:
    using allocator_type = Memory;

    explicit Texts(Memory memory) : valid(memory), data_(memory), ends_({0}, memory) {}

    // For text of the next row; `end_row` says whether there is any.
    std::pmr::string& data() { return data_; }
    bool is_row_empty() const { return static_cast<int64_t>(data_.size()) == ends_.back(); }

    void end_row(bool is_valid) {
        if (data_.size() > std::numeric_limits<int32_t>::max()) throw Declined{};
        ends_.push_back(static_cast<int32_t>(data_.size()));
        valid.push(is_valid);
    }

    void add(std::string_view text) {
        data_.append(text);
        end_row(true);
    }

    Buffers buffers() const { return {{valid.buffer(), ends_.data(), data_.data()}, 3}; }

    Validity valid;

  private:
    std::pmr::string data_;
    std::pmr::vector<int32_t> ends_;
};

template <typename T>
class Numbers {
  public:
    explicit Numbers(Memory memory) : valid(memory), values_(memory) {}

    void add(T value) {
        values_.push_back(value);
        valid.push(true);
    }

    void end_row(bool is_valid) {
        values_.push_back(0);
        valid.push(is_valid);
    }

    Buffers buffers() const { return {{valid.buffer(), values_.data()}, 2}; }

    Validity valid;

  private:
    std::pmr::vector<T> values_;
};

class Lists {
  public:
    explicit Lists(Memory memory) : valid(memory), ends_({0}, memory) {}

    void end_row(int64_t end) {
        valid.push(end > ends_.back());
        ends_.push_back(static_cast<int32_t>(end));
    }

    Buffers buffers() const { return {{valid.buffer(), ends_.data()}, 2}; }

    Validity valid;

  private:
    std::pmr::vector<int32_t> ends_;
};

// What an ArrowArray points to, until it is released; `Owned` is what its buffers belong to.
template <typename Owned>
class Exported {
  public:
    explicit Exported(std::shared_ptr<Owned> owned) : owned_(std::move(owned)) {}

    void fill(ArrowArray* out, int64_t length, int64_t n_null, const Buffers& buffers,
              const std::vector<ArrowArray>& children) {
        buffers_ = buffers;
        for (const ArrowArray& child : children) {
            children_.push_back(std::make_unique<ArrowArray>(child));
            pointers_.push_back(children_.back().get());
        }
        *out = {length, n_null, 0, buffers_.n_parts,
                static_cast<int64_t>(pointers_.size()), buffers_.parts.data(), pointers_.data(), nullptr,
                release, this};
    }

  private:
    std::shared_ptr<Owned> owned_;
    Buffers buffers_{};
    std::vector<std::unique_ptr<ArrowArray>> children_;
    std::vector<ArrowArray*> pointers_;

    static void release(ArrowArray* array) {
        for (int64_t child = 0; child < array->n_children; ++child) {
            if (array->children[child]->release) array->children[child]->release(array->children[child]);
        }
        array->release = nullptr;
        delete static_cast<Exported*>(array->private_data);
    }
};

template <typename Owned>
void export_columns(ArrowArray* out, const std::shared_ptr<Owned>& owned, int64_t n_rows,
                    const std::vector<ArrowArray>& columns) {
    auto node = std::make_unique<Exported<Owned>>(owned);
    node->fill(out, n_rows, 0, {{nullptr}, 1}, columns);
    node.release();  // by the array's `release`
}

template <typename Owned, typename Column>
ArrowArray exported(const std::shared_ptr<Owned>& owned, const Column& column,
                    const std::vector<ArrowArray>& children = {}) {
    ArrowArray array{};
    auto node = std::make_unique<Exported<Owned>>(owned);
    node->fill(&array, column.valid.n_rows(), column.valid.n_null(), column.buffers(), children);
    node.release();
    return array;
}

// The lines of a text that outlives them.
inline std::vector<std::string_view> lines(std::string_view text) {
    std::vector<std::string_view> found;
    while (!text.empty()) {
        const size_t end = std::min(text.find('\n'), text.size());
        found.push_back(text.substr(0, end));
        text.remove_prefix(std::min(end + 1, text.size()));
    }
    return found;
}
