//! SentencePiece BPE tokenizer: exact and fast.
