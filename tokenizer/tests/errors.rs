//! Files that must be refused, and the words that the errors must have.

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
        // Cut between two pieces, the model lacks the settings that say that it is BPE.
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
    assert_eq!((tokenizer.unk(), tokenizer.bos(), tokenizer.eos(), tokenizer.pad()), (Some(0), Some(1), Some(2), None));
    assert_eq!((tokenizer.id_of("[INST]"), tokenizer.piece(3)), (Some(3), Some("[INST]")));
}

/// Transformers knows `[INST]` only from tokenizer_config.json.
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
    refused(Tokenizer::from_json(b"{}"), "neither a model");
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
    check("/normalizer", json!({"type": "Prepend", "prepend": "▁"}), "without a Replace");
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

fn byte_level_json() -> Value {
    let bytes = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
    json!({
        "added_tokens": [{"id": 4, "content": "<s>", "special": true}],
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": bytes,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [4], "tokens": ["<s>"]}}
        },
        "decoder": bytes,
        "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2, "Ġ": 3}, "merges": ["a b"]}
    })
}

#[test]
fn what_a_byte_level_file_means_is_followed_or_refused() {
    let load = |json: &Value| Tokenizer::from_json(json.to_string().as_bytes());
    let tokenizer = load(&byte_level_json()).unwrap();
    // `c` has no token and is dropped, so its neighbors merge.
    assert_eq!(tokenizer.encode("ab acb<s>"), [2, 3, 2]);
    assert_eq!(tokenizer.encode_special("a<s>", tokenizer.default_special_tokens()), [0, 4]);
    assert_eq!((tokenizer.begin_ids(), tokenizer.end_ids()), (&[4][..], &[][..]));
    assert_eq!((tokenizer.bos(), tokenizer.eos(), tokenizer.pad(), tokenizer.unk()), (Some(4), None, None, None));
    assert_eq!(tokenizer.decode_special(&[4, 2, 3]).unwrap(), "<s>ab ");
    let check = |path: &str, value: Value, words: &str| {
        let mut json = byte_level_json();
        *json.pointer_mut(path).unwrap_or_else(|| panic!("no {path}")) = value;
        refused(load(&json), words);
    };
    check("/normalizer", json!({"type": "NFKC"}), "normalizer NFKC");
    check("/pre_tokenizer/add_prefix_space", json!(true), "add_prefix_space");
    check("/pre_tokenizer/use_regex", json!(false), "pre_tokenizer ByteLevel");
    let split = |pattern: &str, behavior: &str| {
        json!({"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": pattern}, "behavior": behavior, "invert": false},
            {"type": "ByteLevel", "add_prefix_space": false, "use_regex": false}
        ]})
    };
    let known = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
    check("/pre_tokenizer", split(r"\w+", "Isolated"), r"\\w+");
    check("/pre_tokenizer", split(known, "MergedWithNext"), "MergedWithNext");
    check("/pre_tokenizer", json!({"type": "Digits", "individual_digits": false}), "Digits");
    check("/pre_tokenizer", json!(null), "pre_tokenizer");
    check(
        "/decoder",
        json!({"type": "Sequence", "decoders": [{"type": "ByteLevel"}, {"type": "Fuse"}]}),
        "decoder Fuse",
    );
    check("/post_processor", json!({"type": "BertProcessing"}), "post_processor BertProcessing");
    check("/post_processor/single", json!([]), "does not have the text");
    check("/post_processor/special_tokens", json!({}), "no ids for \"<s>\"");
    check("/post_processor/special_tokens/<s>/ids", json!([5]), "no token has the id 5");
    check("/added_tokens/0/id", json!(6), "no token has the id 4");
    check("/added_tokens/0/id", json!(3), "both have the id 3");
    check("/added_tokens/0/content", json!("a"), "in model.vocab 0");
    check("/model/merges", json!(["a a"]), "\"aa\"");
    check("/model/merges", json!(["a b", "a b"]), "twice");
    check("/model/merges", json!([["a", "b", "c"]]), "not a pair");
    for (key, value) in [("unk_token", json!("a")), ("byte_fallback", json!(true))] {
        let mut json = byte_level_json();
        json["model"][key] = value;
        refused(load(&json), "must have all 256");
    }
    let mut json = byte_level_json();
    json["pre_tokenizer"] = split(known, "Isolated");
    assert_eq!(load(&json).unwrap().encode("ab"), [2]);
}

fn tekken_json() -> Value {
    let base64 = |bytes: &[u8]| {
        let digit =
            |i: u32| b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"[i as usize & 63] as char;
        let bits = bytes.iter().fold(0, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - bytes.len()));
        let digits = (0..4).map(|i| if i <= bytes.len() { digit(bits >> (18 - 6 * i)) } else { '=' });
        digits.collect::<String>()
    };
    let mut tokens: Vec<Vec<u8>> = (0..=255).map(|byte| vec![byte]).collect();
    tokens.extend(["ab", "bc", "abc"].map(|text| text.as_bytes().to_vec()));
    let vocab =
        |(rank, bytes): (usize, &Vec<u8>)| json!({"rank": rank, "token_bytes": base64(bytes), "token_str": null});
    json!({
        "config": {
            "pattern": include_str!("data/tekken_pattern.txt").trim_end(),
            "default_vocab_size": 30 + 256 + 3, "default_num_special_tokens": 30, "version": "v3"
        },
        "vocab": tokens.iter().enumerate().map(vocab).collect::<Vec<_>>()
    })
}

#[test]
fn what_a_tekken_file_means_is_followed_or_refused() {
    let load = |json: &Value| Tokenizer::from_json(json.to_string().as_bytes());
    let tokenizer = load(&tekken_json()).unwrap();
    let byte = |byte: u8| 30 + u32::from(byte);
    assert_eq!(tokenizer.encode("abc bc[INST]")[..4], [288, byte(b' '), 287, byte(b'[')]);
    assert_eq!(tokenizer.encode_special("[INST]a", tokenizer.default_special_tokens()), [3, byte(b'a')]);
    assert_eq!((tokenizer.bos(), tokenizer.eos(), tokenizer.pad()), (Some(1), Some(2), Some(11)));
    assert_eq!((tokenizer.begin_ids(), tokenizer.piece(29)), (&[1][..], Some("<SPECIAL_29>")));
    // Without the last token, `abc` is merged from the others.
    let mut json = tekken_json();
    json["config"]["default_vocab_size"] = json!(288);
    assert_eq!(load(&json).unwrap().encode("abc"), [286, byte(b'c')]);
    let check = |path: &str, value: Value, words: &str| {
        let mut json = tekken_json();
        *json.pointer_mut(path).unwrap_or_else(|| panic!("no {path}")) = value;
        refused(load(&json), words);
    };
    check("/config/pattern", json!(r"\w+"), r"config.pattern");
    check("/config/default_vocab_size", json!(1000), "default_vocab_size is 1000");
    check("/config/default_num_special_tokens", json!(10), "default_num_special_tokens is 10");
    check("/vocab/7/rank", json!(8), "vocab[7]");
    check("/vocab/7/token_bytes", json!("A"), "vocab[7]");
    check("/vocab/258/token_bytes", json!("YWI="), "defined twice");
    let special = |names: [&str; 2], ranks: [u32; 2]| {
        let mut json = tekken_json();
        let list =
            names.iter().zip(ranks).map(|(name, rank)| json!({"rank": rank, "token_str": name, "is_control": true}));
        json["special_tokens"] = list.collect();
        load(&json)
    };
    assert_eq!(special(["<s>", "[X]"], [0, 1]).unwrap().id_of("[X]"), Some(1));
    refused(special(["<s>", "<s>"], [0, 1]), "\"<s>\" is listed twice");
    refused(special(["<s>", "[X]"], [0, 2]), "special_tokens[1]");
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
