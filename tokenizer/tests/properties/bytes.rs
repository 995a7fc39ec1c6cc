//! Properties of byte-level tokenizers.

use halfbyte_tokenizer::Tokenizer;

use crate::naive_bytes::{self, LETTERS, Model, PATTERNS, char_of};
use crate::rng::Rng;
use crate::{DATA, random_text};

/// A vocabulary of random merges, some of which produce the same token. It has parts of characters and sometimes tokens
/// that no merge produces or bytes without a token.
fn random_model(rng: &mut Rng) -> Model {
    let (few, all) = (rng.chance(0.3), rng.chance(0.8));
    let seen: String = LETTERS.iter().filter(|_| all || rng.chance(0.8)).copied().collect();
    let mut bytes: Vec<u8> = if few { seen.bytes().collect() } else { (0..=255).collect() };
    bytes.sort_unstable();
    bytes.dedup();
    let mut model = Model {
        tokens: bytes.into_iter().map(|byte| char_of(byte).to_string()).collect(),
        pattern: rng.below(PATTERNS.len()),
        digits_apart: rng.chance(0.2),
        ignore_merges: rng.chance(0.5),
        ..Model::default()
    };
    let used: Vec<String> = seen.bytes().map(|byte| char_of(byte).to_string()).collect();
    let mut known: Vec<String> = used.into_iter().filter(|token| model.tokens.contains(token)).collect();
    let longest = *rng.of(&[9, 40]);
    for _ in 0..rng.between(0, 120) {
        let (left, right) = (rng.of(&known).clone(), rng.of(&known).clone());
        let merged = format!("{left}{right}");
        if merged.chars().count() > longest || model.merges.contains(&(left.clone(), right.clone())) {
            continue;
        }
        if !model.tokens.contains(&merged) {
            model.tokens.push(merged.clone());
            known.push(merged);
        }
        if rng.chance(0.9) {
            let at = if rng.chance(0.8) { model.merges.len() } else { rng.between(0, model.merges.len()) };
            model.merges.insert(at, (left, right));
        }
    }
    model
}

fn text(rng: &mut Rng) -> String {
    let letters: Vec<&str> = (0..rng.between(1, 8)).map(|_| *rng.of(&LETTERS)).collect();
    let longest = if rng.chance(0.1) { 200 } else { 16 };
    (0..rng.between(0, longest)).map(|_| *rng.of(&letters)).collect()
}

#[test]
fn encoding_equals_the_naive_reference() {
    let mut rng = Rng::new(11);
    for _ in 0..400 {
        let model = random_model(&mut rng);
        let tokenizer = Tokenizer::from_json(naive_bytes::json(&model).as_bytes()).unwrap();
        for _ in 0..20 {
            let text = text(&mut rng);
            let expected = naive_bytes::encode(&model, &text);
            assert_eq!(tokenizer.encode(&text), expected, "{text:?} {model:?}");
            // A second time, from the word cache.
            assert_eq!(tokenizer.encode(&text), expected, "{text:?} {model:?}");
            let tokens = tokenizer.encode_with_offsets(&text);
            assert_eq!(tokens.iter().map(|t| t.id).collect::<Vec<_>>(), expected, "{text:?} {model:?}");
            assert!(tokens.iter().all(|t| text.get(t.span.clone()).is_some()), "{text:?} {tokens:?}");
        }
    }
}

fn open(name: &str) -> Tokenizer {
    Tokenizer::open_json(format!("{DATA}/tokenizers/{name}/tokenizer.json")).unwrap()
}

/// A token's span holds exactly the characters that its bytes belong to.
#[test]
fn spans_are_the_characters_of_the_bytes() {
    let mut rng = Rng::new(12);
    let tokenizer = open("bytes-llama3");
    for _ in 0..2000 {
        let text = if rng.chance(0.5) { random_text(&mut rng) } else { rng.unicode(20) };
        let mut at = 0;
        for token in tokenizer.encode_with_offsets(&text) {
            let len = tokenizer.piece(token.id).unwrap().chars().count();
            let start = (0..=at).rev().find(|at| text.is_char_boundary(*at)).unwrap();
            let end = (at + len..).find(|at| text.is_char_boundary(*at)).unwrap();
            assert_eq!(token.span, start..end, "{text:?}");
            at += len;
        }
        assert_eq!(at, text.len());
    }
}

/// NFC moves and merges characters. Spans still stay in the text, in order, and leave nothing out.
#[test]
fn spans_of_normalized_text_cover_it() {
    let mut rng = Rng::new(13);
    let tokenizer = open("bytes-qwen2");
    let units = [
        "e", "é", "\u{301}", "\u{323}", "\u{1112}", "\u{1161}", "\u{11ab}", "가", "\u{958}", "x", " ", "<think>", "<N>",
    ];
    for _ in 0..2000 {
        let text: String = (0..rng.between(0, 12)).map(|_| *rng.of(&units)).collect();
        let tokens = tokenizer.encode_with_offsets(&text);
        assert_eq!(tokens.iter().map(|t| t.id).collect::<Vec<_>>(), tokenizer.encode(&text), "{text:?}");
        let mut covered = 0;
        for token in &tokens {
            assert!(text.get(token.span.clone()).is_some_and(|part| !part.is_empty()), "{text:?} {token:?}");
            assert!(token.span.start <= covered, "{text:?} {tokens:?}");
            covered = covered.max(token.span.end);
        }
        assert_eq!(covered, text.len(), "{text:?} {tokens:?}");
    }
}

#[test]
fn every_text_survives() {
    let mut rng = Rng::new(14);
    for name in ["bytes-llama3", "bytes-tekken"] {
        let tokenizer = open(name);
        for c in '\0'..=char::MAX {
            let text = c.to_string();
            assert_eq!(tokenizer.decode(&tokenizer.encode(&text)).unwrap(), text);
        }
        let texts: Vec<String> = (0..2000).map(|_| rng.unicode(30)).collect();
        let ids = tokenizer.encode_batch(&texts);
        for (text, ids) in texts.iter().zip(ids) {
            assert_eq!(tokenizer.decode(&ids).unwrap(), *text);
        }
    }
}

#[test]
fn streaming_equals_decoding_at_once() {
    let mut rng = Rng::new(15);
    for name in ["bytes-gpt2", "bytes-qwen2"] {
        let tokenizer = open(name);
        for _ in 0..3000 {
            let mut ids = tokenizer.encode(&rng.unicode(10));
            for _ in 0..rng.between(0, 4) {
                let at = rng.between(0, ids.len());
                ids.insert(at, rng.below(tokenizer.vocab_size()) as u32);
            }
            let whole = tokenizer.decode(&ids).unwrap();
            let mut decoder = tokenizer.decoder();
            let mut shown = String::new();
            for id in ids {
                shown.push_str(decoder.push(id).unwrap());
                assert!(whole.starts_with(&shown), "{whole:?} {shown:?}");
            }
            shown.push_str(&decoder.finish());
            assert_eq!(shown, whole);
        }
    }
}
