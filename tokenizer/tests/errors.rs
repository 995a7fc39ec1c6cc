//! Files that must be refused, and what is said about them.

use halfbyte_tokenizer::{ModelFile, Piece, PieceKind, SpaceRule, SpecialTokens, Tokenizer, Trainer};
use serde_json::{Value, json};

const SMALL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/tokenizers/small/tokenizer.model");

fn refused(result: Result<Tokenizer, halfbyte_tokenizer::Error>, words: &str) {
    let error = result.err().unwrap_or_else(|| panic!("accepted, though {words}")).to_string();
    assert!(error.contains(words), "{error:?} does not say {words:?}");
}

#[test]
fn broken_model_files_are_refused_by_name_and_reason() {
    refused(Tokenizer::open("no/such/tokenizer.model"), "no/such/tokenizer.model");
    refused(Tokenizer::from_bytes(b""), "no pieces");
    refused(Tokenizer::from_bytes(b"{\"version\": \"1.0\"}"), "not a SentencePiece model");
    let bytes = std::fs::read(SMALL).unwrap();
    for len in (0..bytes.len()).step_by(7) {
        // Truncated: an error, or (cut between two pieces) a model without the settings that say it is BPE.
        assert!(Tokenizer::from_bytes(&bytes[..len]).is_err(), "{len}");
    }
}

#[test]
fn contradictory_models_are_refused_by_field_and_value() {
    let good = || ModelFile::parse(&std::fs::read(SMALL).unwrap()).unwrap();
    let check = |change: &dyn Fn(&mut ModelFile), words: &str| {
        let mut model = good();
        change(&mut model);
        refused(Tokenizer::from_model(model), words);
    };
    let original = good();
    let with = |id: usize, change: &dyn Fn(&mut Piece), words| {
        check(
            &|m| {
                let mut pieces: Vec<Piece> = original.pieces.iter().collect();
                change(&mut pieces[id]);
                m.pieces = pieces.into_iter().collect();
            },
            words,
        );
    };
    let taken = original.pieces.get(600).unwrap().text;
    with(0, &|p| p.kind = PieceKind::Normal, "no unknown piece");
    with(1, &|p| p.kind = PieceKind::Unknown, "second unknown piece");
    check(&|m| m.pieces.push("", 0.0, PieceKind::Normal), "is empty");
    check(&|m| m.pieces.push(taken, 0.0, PieceKind::Normal), "defined twice");
    check(&|m| m.pieces.push(taken, 0.0, PieceKind::UserDefined), "defined twice");
    check(&|m| m.pieces.push("<s>", 0.0, PieceKind::Control), "defined twice");
    check(&|m| m.byte_fallback = false, "byte_fallback is false");
    check(&|m| m.pieces = m.pieces.iter().filter(|p| p.text != "<0x41>").collect(), "no byte piece <0x41>");
    check(&|m| m.pieces.push("<0x4>", 0.0, PieceKind::Byte), "not of the form");
    with(600, &|p| p.score = f32::NAN, "not a number");
    with(600, &|p| p.text = "a\0", "NUL character");
    with(600, &|p| (p.text, p.kind) = ("\0", PieceKind::Control), "NUL character");
    check(&|m| m.normalizer.precompiled_charsmap = vec![255; 9], "precompiled_charsmap");
    let long = [vec![4, 0, 0, 0, 0, 0, 0, 0], vec![b'x'; 5000]].concat();
    check(&|m| m.normalizer.precompiled_charsmap = long.clone(), "replacement of 5000 bytes");
}

#[test]
fn ids_out_of_range_are_errors() {
    let tokenizer = Tokenizer::open(SMALL).unwrap();
    let error = tokenizer.decode(&[1, 1000]).unwrap_err().to_string();
    assert!(error.contains("1000"), "{error}");
    assert!(tokenizer.decoder().push(u32::MAX).is_err());
    assert_eq!((tokenizer.piece(1000), tokenizer.kind(1000), tokenizer.id_of("no piece")), (None, None, None));
}

#[test]
fn special_ids_are_found_by_name() {
    let tokenizer = Tokenizer::open(SMALL).unwrap();
    assert_eq!((tokenizer.unk(), tokenizer.bos(), tokenizer.eos(), tokenizer.pad()), (0, Some(1), Some(2), None));
    assert_eq!((tokenizer.id_of("[INST]"), tokenizer.piece(3)), (Some(3), Some("[INST]")));
}

/// Transformers knows of `[INST]` by tokenizer_config.json only.
#[test]
fn a_model_alone_has_three_special_tokens() {
    let tokenizer = Tokenizer::open(SMALL).unwrap();
    let found = |special: SpecialTokens| {
        let ids = tokenizer.encode_special("<s></s><unk>[INST]", &special);
        ids.into_iter()
            .filter(|id| matches!(tokenizer.kind(*id), Some(PieceKind::Control | PieceKind::Unknown)))
            .collect()
    };
    let (first, second): (Vec<u32>, Vec<u32>) = (
        found(tokenizer.special_tokens(SpaceRule::EveryPart)),
        found(tokenizer.special_tokens(SpaceRule::FirstPart).with("[INST]", 3)),
    );
    assert_eq!((first.as_slice(), second.as_slice()), (&[1, 2, 0][..], &[1, 2, 0, 3][..]));
}

fn tokenizer_json() -> Value {
    let step = |old: &str, new: &str| json!({"type": "Replace", "pattern": {"String": old}, "content": new});
    json!({
        "added_tokens": [{"id": 0, "content": "<unk>", "special": true}],
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, step(" ", "▁")]},
        "pre_tokenizer": null,
        "decoder": {"type": "Sequence", "decoders": [step("▁", " "), {"type": "ByteFallback"}]},
        "model": {
            "type": "BPE", "unk_token": "<unk>", "fuse_unk": true, "byte_fallback": false,
            "vocab": {"<unk>": 0, "▁": 1, "a": 2, "▁a": 3}, "merges": [["▁", "a"]]
        }
    })
}

#[test]
fn what_a_tokenizer_json_means_is_followed_or_refused() {
    let load = |json: &Value| Tokenizer::from_json(json.to_string().as_bytes());
    assert_eq!(load(&tokenizer_json()).unwrap().encode("a a b"), [3, 3, 1, 0]);
    refused(Tokenizer::from_json(b"[1"), "not a tokenizer.json");
    let check = |path: &str, value: Value, words: &str| {
        let mut json = tokenizer_json();
        *json.pointer_mut(path).unwrap_or_else(|| panic!("no {path}")) = value;
        refused(load(&json), words);
    };
    check("/model/type", json!("WordPiece"), "WordPiece");
    check("/model/unk_token", json!(null), "unk_token");
    check("/model/unk_token", json!("<UNK>"), "<UNK>");
    check("/model/fuse_unk", json!(false), "fuse_unk");
    check("/model/byte_fallback", json!(true), "<0x00>");
    check("/model/merges", json!([["a", "a"]]), "\"aa\"");
    check("/model/merges", json!(["▁ a", "▁ a"]), "twice");
    check("/model/merges", json!(["a"]), "two tokens");
    check("/model/vocab/a", json!(3), "have the id 3");
    check("/model/vocab/a", json!(7), "no token has the id 2");
    check("/normalizer", json!({"type": "NFKC"}), "NFKC");
    check("/normalizer", json!({"type": "Prepend", "prepend": "▁"}), "without Replace");
    check("/pre_tokenizer", json!({"type": "ByteLevel"}), "ByteLevel");
    check("/pre_tokenizer", json!({"type": "Metaspace", "replacement": "▁"}), "Metaspace");
    check("/decoder", json!({"type": "WordPiece"}), "WordPiece");
    check("/decoder", json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first"}), "Metaspace");
    check("/decoder", json!(null), "in this order");
    let decoder = tokenizer_json()["decoder"]["decoders"].clone();
    let (spaces, bytes) = (decoder[0].clone(), decoder[1].clone());
    let (fuse, strip) = (json!({"type": "Fuse"}), json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    for steps in [
        vec![bytes.clone(), spaces.clone()],
        vec![bytes.clone()],
        vec![spaces.clone(), bytes.clone(), strip.clone()],
        vec![spaces.clone(), bytes.clone(), strip.clone(), fuse.clone()],
        vec![spaces, bytes, fuse, strip.clone(), strip],
    ] {
        check("/decoder/decoders", json!(steps), "in this order");
    }
    let normalizer = tokenizer_json()["normalizer"]["normalizers"].clone();
    check("/normalizer/normalizers", json!([normalizer[0], normalizer[0], normalizer[1]]), "Prepend");
    check("/added_tokens/0/content", json!("<pad>"), "added_tokens");
    check("/added_tokens/0", json!({"id": 0, "content": "<unk>", "lstrip": true}), "lstrip");
    let mut json = tokenizer_json();
    json["model"]["byte_fallback"] = json!(true);
    json["decoder"] = json!({"type": "Fuse"});
    refused(load(&json), "no ByteFallback");
    for key in ["ignore_merges", "dropout", "continuing_subword_prefix", "end_of_word_suffix"] {
        let value = match key {
            "ignore_merges" => json!(true),
            "dropout" => json!(0.1),
            _ => json!("##"),
        };
        let mut json = tokenizer_json();
        json["model"][key] = value;
        refused(load(&json), key);
    }
}

#[test]
fn impossible_vocabularies_are_refused() {
    let train = |trainer: Trainer| match trainer.train(&["a few words, a few letters"]) {
        Ok(model) => panic!("trained {} pieces", model.pieces.len()),
        Err(error) => error.to_string(),
    };
    assert!(train(Trainer { vocab_size: 100, ..Trainer::default() }).contains("raise vocab_size"));
    assert!(train(Trainer { vocab_size: 5000, ..Trainer::default() }).contains("more text"));
    assert!(train(Trainer { character_coverage: 0.0, ..Trainer::default() }).contains("character_coverage"));
    let twice = Trainer { user_defined: vec!["<q>".into(), "<q>".into()], ..Trainer::default() };
    assert!(train(twice).contains("<q>"));
    let nul = Trainer { control: vec!["[\0]".into()], ..Trainer::default() };
    assert!(train(nul).contains("NUL"));
    assert!(Trainer::default().train::<&str>(&[]).unwrap_err().to_string().contains("empty"));
}
