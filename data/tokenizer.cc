#include <cstddef>
#include <cstdint>
#include <cstring>
#include <exception>
#include <new>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include <sentencepiece_processor.h>
#include <sentencepiece_trainer.h>

extern "C" {
#include "data/tokenizer.h"
#include "kernels/memory.h"
#include "kernels/status.h"
}

struct tokenizer {
    sentencepiece::SentencePieceProcessor processor;
};

namespace {

// The trainer takes as candidate pieces only substrings that are followed by different characters in
// different places. In captions made from a few patterns many a word has always the same follower, would
// never be a candidate and would end in letters. So every distinct word is shown twice more: at the end of a
// sentence and before a space.
std::vector<std::string> list_words(const char *const *captions, size_t count) {
    static const char separators[] = " \t\r\n.,;:!?()\"";
    std::set<std::string> words;
    for (size_t i = 0; i < count; i++) {
        for (const char *c = captions[i]; *c != '\0';) {
            const size_t length = std::strcspn(c, separators);
            if (length > 0)
                words.emplace(c, length);
            c += length + std::strspn(c + length, separators);
        }
    }
    std::vector<std::string> sentences;
    for (const std::string &word : words) {
        sentences.push_back(word);
        sentences.push_back(word + " " + word);
    }
    return sentences;
}

// The captions, then the sentences made from their words.
class caption_iterator final : public sentencepiece::SentenceIterator {
  public:
    caption_iterator(const char *const *captions, size_t count)
        : captions_(captions), count_(count), words_(list_words(captions, count)) {
        load();
    }
    bool done() const override {
        return next_ >= count_ + words_.size();
    }
    void Next() override {
        next_++;
        load();
    }
    const std::string &value() const override {
        return value_;
    }
    sentencepiece::util::Status status() const override {
        return {};
    }

  private:
    void load() {
        if (next_ < count_)
            value_ = captions_[next_];
        else if (!done())
            value_ = words_[next_ - count_];
    }
    const char *const *captions_; // [count_]
    size_t count_;
    std::vector<std::string> words_;
    size_t next_ = 0;
    std::string value_;
};

// Runs `body`, turning an exception into a failure of `action`.
template <typename Body> status guarded(const char *action, Body body) noexcept {
    try {
        return body();
    } catch (const std::bad_alloc &) {
        return FAIL("cannot %s: out of memory", action);
    } catch (const std::exception &error) {
        return FAIL("cannot %s: %s", action, error.what());
    } catch (...) {
        return FAIL("cannot %s: SentencePiece failed without a reason", action);
    }
}

status failed(const char *action, const sentencepiece::util::Status &found) {
    std::string text = found.ToString();
    for (char &character : text) {
        if (character == '\n')
            character = ' ';
    }
    return FAIL("cannot %s: SentencePiece says: %s", action, text.c_str());
}

status check_captions(const char *const *captions, size_t count) {
    for (size_t i = 0; i < count; i++) {
        for (const char *c = captions[i]; *c != '\0'; c++) {
            if (*c != ' ' && *c != '\t' && *c != '\n' && *c != '\r')
                return STATUS_OK;
        }
    }
    return FAIL("cannot train a tokenizer: none of the %zu captions has any text", count);
}

} // namespace

extern "C" {

status tokenizer_train(const char *const *captions, size_t count, uint32_t vocabulary_size, void **out,
                       size_t *out_bytes) {
    *out = nullptr;
    *out_bytes = 0;
    TRY(check_captions(captions, count));
    return guarded("train a tokenizer", [&]() -> status {
        const std::unordered_map<std::string, std::string> settings = {
            {"minloglevel", "3"}, // the trainer talks on stderr otherwise
            {"model_type", "unigram"},
            {"vocab_size", std::to_string(vocabulary_size)},
            {"hard_vocab_limit", "false"},
            {"character_coverage", "1.0"},
            {"normalization_rule_name", "nmt_nfkc_cf"},
            {"num_threads", "1"}, // sums over threads depend on their number
            {"max_sentence_length", "65536"},
            {"pad_id", std::to_string(TOKENIZER_PAD)},
            {"unk_id", std::to_string(TOKENIZER_UNKNOWN)},
            {"bos_id", std::to_string(TOKENIZER_BEGIN)},
            {"eos_id", std::to_string(TOKENIZER_END)},
        };
        caption_iterator iterator(captions, count);
        std::string model;
        const auto trained = sentencepiece::SentencePieceTrainer::Train(settings, &iterator, &model);
        if (!trained.ok())
            return status_prefix(
                failed("train", trained),
                "a vocabulary of %u on %zu captions (too small a vocabulary?): ", vocabulary_size, count);
        TRY(memory_allocate(out, model.size(), "tokenizer model"));
        std::memcpy(*out, model.data(), model.size());
        *out_bytes = model.size();
        return STATUS_OK;
    });
}

status tokenizer_create(tokenizer **out, const void *model, size_t count) {
    *out = nullptr;
    tokenizer *made = nullptr;
    const status result = guarded("load a tokenizer", [&]() -> status {
        made = new tokenizer;
        const auto loaded =
            made->processor.LoadFromSerializedProto({static_cast<const char *>(model), count});
        if (!loaded.ok())
            return failed("load a tokenizer", loaded);
        const auto &processor = made->processor;
        if (processor.pad_id() != TOKENIZER_PAD || processor.unk_id() != TOKENIZER_UNKNOWN ||
            processor.bos_id() != TOKENIZER_BEGIN || processor.eos_id() != TOKENIZER_END)
            return FAIL("cannot load a tokenizer: its pad, unknown, begin and end are %d, %d, %d and %d, "
                        "wanted %d, %d, %d and %d; it was trained elsewhere",
                        processor.pad_id(), processor.unk_id(), processor.bos_id(), processor.eos_id(),
                        TOKENIZER_PAD, TOKENIZER_UNKNOWN, TOKENIZER_BEGIN, TOKENIZER_END);
        return STATUS_OK;
    });
    if (result != STATUS_OK)
        delete made;
    else
        *out = made;
    return result;
}

void tokenizer_destroy(tokenizer *tokenizer) {
    delete tokenizer;
}

uint32_t tokenizer_vocabulary_size(const tokenizer *tokenizer) {
    return static_cast<uint32_t>(tokenizer->processor.GetPieceSize());
}

status tokenizer_encode(const tokenizer *tokenizer, const char *text, int32_t *ids, size_t capacity,
                        size_t *count) {
    *count = 0;
    return guarded("split a text into tokens", [&]() -> status {
        std::vector<int> found;
        const auto encoded = tokenizer->processor.Encode(text, &found);
        if (!encoded.ok())
            return failed("split a text into tokens", encoded);
        for (size_t i = 0; i < found.size() && i < capacity; i++)
            ids[i] = found[i];
        *count = found.size();
        return STATUS_OK;
    });
}

status tokenizer_decode(const tokenizer *tokenizer, const int32_t *ids, size_t count, char *text,
                        size_t capacity) {
    if (capacity > 0)
        text[0] = '\0';
    return guarded("join tokens to a text", [&]() -> status {
        const int size = tokenizer->processor.GetPieceSize();
        for (size_t i = 0; i < count; i++) {
            if (ids[i] < 0 || ids[i] >= size)
                return FAIL("cannot join tokens to a text: token %zu is %d, the vocabulary has %d", i, ids[i],
                            size);
        }
        const std::vector<int> wanted(ids, ids + count);
        std::string joined;
        const auto decoded = tokenizer->processor.Decode(wanted, &joined);
        if (!decoded.ok())
            return failed("join tokens to a text", decoded);
        if (joined.size() >= capacity)
            return FAIL("cannot join tokens to a text: it needs %zu bytes, %zu are there", joined.size() + 1,
                        capacity);
        std::memcpy(text, joined.c_str(), joined.size() + 1);
        return STATUS_OK;
    });
}
}
