//! A tokenizer small enough to read its tokens: every character is one.

use halfbyte::data::document::{DocumentSettings, Encoder};
use halfbyte::data::tokenizer_config::TokenizerConfig;
use halfbyte_core::session::batch::{Document, IGNORED};
use halfbyte_tokenizer::model_file::NormalizerSpec;
use halfbyte_tokenizer::{ModelFile, PieceKind, Pieces, Tokenizer};

/// `<unk>`, `<s>`, `</s>`, `[INST]`, `[/INST]`, then a piece for every byte and for every printable ASCII character.
pub fn tokenizer() -> Tokenizer {
    let mut pieces = Pieces::default();
    let mut add = |text: &str, kind| pieces.push(text, 0.0, kind);
    add("<unk>", PieceKind::Unknown);
    ["<s>", "</s>", "[INST]", "[/INST]"].into_iter().for_each(|text| add(text, PieceKind::Control));
    (0..=255).for_each(|b| add(&format!("<0x{b:02X}>"), PieceKind::Byte));
    add("▁", PieceKind::Normal);
    ('!'..='~').for_each(|c| add(&c.to_string(), PieceKind::Normal));
    let normalizer =
        NormalizerSpec { name: "identity".into(), remove_extra_whitespaces: false, ..NormalizerSpec::default() };
    let model = ModelFile { pieces, byte_fallback: true, normalizer, ..ModelFile::default() };
    Tokenizer::from_model(model).expect("a valid model")
}

/// An encoder that adds both tokens, as `legacy=True`.
pub fn encoder() -> Encoder {
    let settings = DocumentSettings { add_bos: true, add_eos: true, legacy: true };
    Encoder::new(tokenizer(), settings, &TokenizerConfig::default()).expect("an encoder")
}

/// The pieces of a document, what is trained on in braces: `<s>▁hi{▁ho</s>}`.
pub fn show(encoder: &Encoder, document: &Document) -> String {
    let (mut out, mut trained) = (String::new(), false);
    for (&id, &label) in document.ids.iter().zip(&document.labels) {
        if (label != IGNORED) != trained {
            trained = !trained;
            out.push(if trained { '{' } else { '}' });
        }
        assert!(label == IGNORED || label == id as i32, "a label is its id or ignored");
        out += encoder.piece(id);
    }
    if trained { out + "}" } else { out }
}
