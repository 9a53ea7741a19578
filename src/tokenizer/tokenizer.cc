#include "tokenizer/tokenizer.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "base/result.h"
#include "tokenizer/tokenizer_file.h"
#include "tokenizer/vocabulary.h"
#include "tokenizer/word_splitter.h"

namespace strata::tokenizer {
namespace {

class BpeTokenizer final : public Tokenizer {
 public:
  explicit BpeTokenizer(const TokenizerFile& file);

  void encode(std::string_view text, std::vector<TokenId>& out) const override;
  std::vector<TokenId> encode_with_specials(std::string_view text) const override;
  std::string_view token_bytes(TokenId id) const override {
    const auto special = find_special(id);
    return special != special_tokens_.end() ? special->text : vocabulary_.bytes(id);
  }
  bool is_special(TokenId id) const override { return find_special(id) != special_tokens_.end(); }
  const SpecialIds& specials() const override { return specials_; }
  TokenId size() const override { return size_; }
  std::vector<TokenId> never_emit(std::int32_t vocab) const override;
  std::vector<TokenId> stop_ids() const override;

 private:
  struct Special {
    TokenId id;
    std::string text;
  };
  void add_vocab(const TokenizerFile& file);
  void add_merges(const TokenizerFile& file);
  void add_specials(const TokenizerFile& file);
  std::vector<Special>::const_iterator find_special(TokenId id) const {
    const auto at = std::lower_bound(special_tokens_.begin(), special_tokens_.end(), id,
                                     [](const Special& s, TokenId key) { return s.id < key; });
    return at != special_tokens_.end() && at->id == id ? at : special_tokens_.end();
  }

  Vocabulary vocabulary_;                // ordinary tokens
  std::vector<Special> special_tokens_;  // by id
  SpecialIds specials_;
  TokenId size_ = 0;
  bool whole_pieces_first_;
};

[[noreturn]] void refuse(const std::string& message) { throw StartupError(message); }

BpeTokenizer::BpeTokenizer(const TokenizerFile& file) : whole_pieces_first_(file.ignore_merges) {
  if (file.pattern != kO200kPattern)
    refuse(fmt::format("the word pattern is not that of o200k but \"{}\"", file.pattern));
  add_specials(file);
  add_vocab(file);
  add_merges(file);
  size_ = vocabulary_.size();
  if (!special_tokens_.empty()) size_ = std::max(size_, special_tokens_.back().id + 1);
}

void BpeTokenizer::add_vocab(const TokenizerFile& file) {
  for (const TokenizerFile::Token& token : file.vocab) {
    const auto special = find_special(token.id);
    if (special != special_tokens_.end() && special->text == file.text(token.bytes)) continue;
    if (vocabulary_.has(token.id) || special != special_tokens_.end())
      refuse(fmt::format("two tokens have the id {}", token.id));
    vocabulary_.add(token.id, file.text(token.bytes));
  }
  if (const TokenId id = vocabulary_.index(); id != kNoToken)
    refuse(fmt::format("token {} has the bytes of another token", id));
  for (unsigned byte = 0; byte < 256; ++byte)
    if (vocabulary_.find_byte(static_cast<unsigned char>(byte)) == kNoToken)
      refuse(fmt::format("no token for the byte {:#04x}", byte));
}

void BpeTokenizer::add_merges(const TokenizerFile& file) {
  if (file.merges.empty()) refuse("model.merges is missing");
  vocabulary_.reserve_merges(file.merges.size());
  std::string joined;
  for (std::size_t rank = 0; rank < file.merges.size(); ++rank) {
    const std::string_view left = file.text(file.merges[rank].left);
    const std::string_view right = file.text(file.merges[rank].right);
    joined.assign(left).append(right);
    const TokenId left_id = vocabulary_.find(left);
    const TokenId right_id = vocabulary_.find(right);
    const TokenId result = vocabulary_.find(joined);
    if (left_id == kNoToken || right_id == kNoToken || result == kNoToken)
      refuse(fmt::format("merge {} names a token that is not in model.vocab", rank));
    vocabulary_.add_merge(left_id, right_id, {static_cast<std::uint32_t>(rank), result});
  }
}

void BpeTokenizer::add_specials(const TokenizerFile& file) {
  for (const TokenizerFile::AddedToken& added : file.added_tokens)
    special_tokens_.push_back({added.id, added.content});
  std::sort(special_tokens_.begin(), special_tokens_.end(),
            [](const Special& a, const Special& b) { return a.id < b.id; });
  for (std::size_t i = 1; i < special_tokens_.size(); ++i)
    if (special_tokens_[i].id == special_tokens_[i - 1].id)
      refuse(fmt::format("two added tokens have the id {}", special_tokens_[i].id));
  const auto id_of = [&](std::string_view text) {
    for (const Special& special : special_tokens_)
      if (special.text == text) return special.id;
    return kNoToken;
  };
  specials_.start_of_text = id_of("<|startoftext|>");
  specials_.end_of_text = id_of("<|endoftext|>");
  specials_.return_ = id_of("<|return|>");
  specials_.constrain = id_of("<|constrain|>");
  specials_.channel = id_of("<|channel|>");
  specials_.start = id_of("<|start|>");
  specials_.end = id_of("<|end|>");
  specials_.message = id_of("<|message|>");
  specials_.call = id_of("<|call|>");
}

void BpeTokenizer::encode(std::string_view text, std::vector<TokenId>& out) const {
  WordSplitter splitter(text);
  BpeScratch scratch;
  for (std::size_t at = 0; at < text.size();) {
    const std::string_view piece = splitter.piece_at(at);
    at += piece.size();
    const TokenId whole = whole_pieces_first_ ? vocabulary_.find(piece) : kNoToken;
    if (whole != kNoToken) out.push_back(whole);
    else encode_piece(vocabulary_, piece, scratch, out);
  }
}

std::vector<TokenId> BpeTokenizer::encode_with_specials(std::string_view text) const {
  std::vector<TokenId> out;
  std::size_t begin = 0;
  for (std::size_t at = 0; at < text.size();) {
    const Special* longest = nullptr;
    for (const Special& special : special_tokens_)
      if (text.substr(at).starts_with(special.text) &&
          (longest == nullptr || special.text.size() > longest->text.size()))
        longest = &special;
    if (longest == nullptr) {
      ++at;
      continue;
    }
    encode(text.substr(begin, at - begin), out);
    out.push_back(longest->id);
    at += longest->text.size();
    begin = at;
  }
  encode(text.substr(begin), out);
  return out;
}

std::vector<TokenId> BpeTokenizer::never_emit(std::int32_t vocab) const {
  const auto& s = specials_;
  const std::array<TokenId, 8> emitted = {s.end_of_text, s.return_, s.constrain, s.channel,
                                          s.start,       s.end,     s.message,   s.call};
  std::vector<TokenId> out;
  for (TokenId id = 0; id < vocab; ++id) {
    if (vocabulary_.has(id)) continue;
    if (std::find(emitted.begin(), emitted.end(), id) == emitted.end()) out.push_back(id);
  }
  return out;
}

std::vector<TokenId> BpeTokenizer::stop_ids() const {
  std::vector<TokenId> out;
  for (const TokenId id : {specials_.return_, specials_.call, specials_.end_of_text})
    if (id != kNoToken) out.push_back(id);
  return out;
}

}  // namespace

std::unique_ptr<const Tokenizer> Tokenizer::load(const std::filesystem::path& tokenizer_json) {
  const TokenizerFile file = read_tokenizer_file(tokenizer_json);
  try {
    return std::make_unique<BpeTokenizer>(file);
  } catch (const StartupError& error) {
    throw StartupError(fmt::format("{}: {}", tokenizer_json.string(), error.what()),
                       "Strata reads the tokenizer.json of openai/gpt-oss models");
  }
}

}  // namespace strata::tokenizer
