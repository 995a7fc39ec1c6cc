//! Properties that hold for every text and every vocabulary, tested on random ones. Seeds are fixed, so failures
//! repeat.

mod bytes;
mod naive;
mod naive_bytes;
mod rng;

use halfbyte_tokenizer::model_file::NormalizerSpec;
use halfbyte_tokenizer::{ModelFile, PieceKind, Pieces, Tokenizer, Trainer};
use rng::Rng;

const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data");

fn small(name: &str) -> Tokenizer {
    Tokenizer::open(format!("{DATA}/tokenizers/{name}/tokenizer.model")).unwrap()
}

/// A vocabulary of random strings over few characters. It has ties, pieces whose characters are not pieces, pieces with
/// a `▁` anywhere, user-defined pieces and unused ones.
fn random_model(rng: &mut Rng) -> ModelFile {
    let alphabet = ["a", "b", "c", "▁", "é", "가", "😀", " "];
    let alphabet = &alphabet[..rng.between(2, alphabet.len())];
    let mut pieces = Pieces::default();
    pieces.push("<unk>", 0.0, PieceKind::Unknown);
    pieces.push("<s>", 0.0, PieceKind::Control);
    let byte_fallback = rng.chance(0.5);
    if byte_fallback {
        (0..=255u8).for_each(|b| pieces.push(&format!("<0x{b:02X}>"), 0.0, PieceKind::Byte));
    }
    let levels = rng.between(1, 40);
    let unused = if rng.chance(0.3) { 0.2 } else { 0.0 };
    let user = if rng.chance(0.4) { 0.1 } else { 0.0 };
    for _ in 0..rng.between(1, 60) {
        let longest = if rng.chance(0.2) { 12 } else { 4 };
        let chars = rng.between(1, longest);
        let text: String = (0..chars).map(|_| *rng.of(alphabet)).collect();
        if pieces.iter().any(|p| p.text == text) {
            continue;
        }
        let kind = match rng.unit() {
            x if x < user => PieceKind::UserDefined,
            x if x < user + unused => PieceKind::Unused,
            _ => PieceKind::Normal,
        };
        let score = 1.0 - rng.below(levels) as f32;
        pieces.push(&text, if score == 0.0 && rng.chance(0.5) { -0.0 } else { score }, kind);
    }
    let normalizer = NormalizerSpec {
        add_dummy_prefix: rng.chance(0.7),
        remove_extra_whitespaces: false,
        escape_whitespaces: rng.chance(0.8),
        ..NormalizerSpec::default()
    };
    ModelFile { pieces, byte_fallback, normalizer, ..ModelFile::default() }
}

fn random_text(rng: &mut Rng) -> String {
    let alphabet = ["a", "a", "b", "c", " ", "▁", "é", "가", "😀", "z", "漢", "\0"];
    let alphabet = &alphabet[..rng.between(1, alphabet.len())];
    let long = if rng.chance(0.05) { 300 } else { 20 };
    (0..rng.between(0, long)).map(|_| *rng.of(alphabet)).collect()
}

#[test]
fn encoding_equals_the_naive_reference() {
    let mut rng = Rng::new(1);
    for _ in 0..3000 {
        let model = random_model(&mut rng);
        let tokenizer = Tokenizer::from_model(model.clone()).unwrap();
        for _ in 0..20 {
            let text = random_text(&mut rng);
            let expected = naive::encode(&model, &text);
            assert_eq!(tokenizer.encode(&text), expected, "{text:?} {model:?}");
            // A second time, from the word cache.
            assert_eq!(tokenizer.encode(&text), expected, "{text:?} {model:?}");
        }
    }
}

/// ASCII text is cut in blocks of 64 bytes. The ids must not depend on the position or the cause of a block's end.
#[test]
fn long_ascii_text_equals_the_naive_reference() {
    let mut rng = Rng::new(8);
    for _ in 0..400 {
        let mut model = random_model(&mut rng);
        let user = *rng.of(&["b", "ab", " ", "a\u{1}"]);
        if rng.chance(0.5) && model.pieces.iter().all(|p| p.text != user) {
            model.pieces.push(user, 0.0, PieceKind::UserDefined);
        }
        let tokenizer = Tokenizer::from_model(model.clone()).unwrap();
        for length in [15, 16, 17, 62, 63, 64, 65, 66, 127, 128, 129, 200] {
            let mut text: String = (0..length).map(|_| *rng.of(&["a", "a", "b", "c", " ", "\u{1}"])).collect();
            for _ in 0..rng.below(3) {
                let at = rng.below(length);
                let other: &str = if rng.chance(0.5) { "\x7f" } else { "z" };
                text.replace_range(at..at + 1, other);
            }
            let foreign: String = (0..rng.below(3)).map(|_| *rng.of(&["é", "▁", "😀", "\u{80}"])).collect();
            text.insert_str(rng.between(0, length), &foreign);
            assert_eq!(tokenizer.encode(&text), naive::encode(&model, &text), "{text:?} {model:?}");
        }
    }
}

/// Found by fuzzing: the space before the text may itself be a user-defined piece, or begin one.
#[test]
fn the_dummy_prefix_can_be_user_defined() {
    for (escape, user) in [(true, "▁"), (true, "▁a"), (false, " "), (false, " a"), (false, "▁")] {
        let mut model = ModelFile::default();
        model.pieces.push("<unk>", 0.0, PieceKind::Unknown);
        model.pieces.push(user, 0.0, PieceKind::UserDefined);
        model.pieces.push("a", 0.0, PieceKind::Normal);
        model.normalizer.remove_extra_whitespaces = false;
        model.normalizer.escape_whitespaces = escape;
        let tokenizer = Tokenizer::from_model(model.clone()).unwrap();
        for text in ["a", " a", "▁a", "b a", "", " "] {
            assert_eq!(tokenizer.encode(text), naive::encode(&model, text), "{escape} {user:?} {text:?}");
        }
    }
}

/// SentencePiece 0.2.3 behaves like this; earlier releases let text produce unused pieces of one character.
#[test]
fn unused_characters_and_nul_are_never_produced() {
    let model = |bytes: bool, nul: bool| {
        let mut model = ModelFile { byte_fallback: bytes, unk_surface: "x\0y".into(), ..ModelFile::default() };
        model.pieces.push("<unk>", 0.0, PieceKind::Unknown);
        if bytes {
            (0..=255u8).for_each(|b| model.pieces.push(&format!("<0x{b:02X}>"), 0.0, PieceKind::Byte));
        }
        model.pieces.push("a", 0.0, PieceKind::Unused);
        model.pieces.push("b", -1.0, PieceKind::Normal);
        model.pieces.push("ab", -2.0, PieceKind::Unused);
        model.pieces.push("abb", -3.0, PieceKind::Normal);
        if nul {
            model.pieces.push("\0", -4.0, PieceKind::Normal);
        }
        model.normalizer.add_dummy_prefix = false;
        Tokenizer::from_model(model)
    };
    let check = |tokenizer: &Tokenizer, text: &str, ids: &[u32]| {
        assert_eq!(tokenizer.encode(text), ids, "{text:?}");
        let tokens = tokenizer.encode_with_offsets(text);
        assert_eq!(tokens.iter().map(|t| t.id).collect::<Vec<_>>(), ids, "{text:?}");
    };
    let bytes = model(true, true).unwrap();
    check(&bytes, "a", &[98]);
    check(&bytes, "ab", &[98, 258]);
    check(&bytes, "abb", &[260]);
    check(&bytes, "a\0b", &[98, 1, 258]);
    assert_eq!(bytes.decode(&[0, 257, 261]).unwrap(), "x\0ya\0");
    let unknown = model(false, false).unwrap();
    check(&unknown, "a", &[0]);
    check(&unknown, "abb", &[4]);
    check(&unknown, "aa\0zb", &[0, 2]);
    assert!(model(false, true).err().unwrap().to_string().contains("NUL"));
}

#[test]
fn adversarial_merges_equal_the_naive_reference() {
    let mut rng = Rng::new(2);
    for scores in 0..4 {
        // a, aa, aaa, ...: every merge competes with every other. Scores rise, fall, tie, or are random.
        let mut model = ModelFile::default();
        model.pieces.push("<unk>", 0.0, PieceKind::Unknown);
        for n in 1..40 {
            let score = [n as f32, -(n as f32), 0.0, rng.below(10) as f32][scores];
            model.pieces.push(&"a".repeat(n), score, PieceKind::Normal);
            model.pieces.push(&format!("{}b", "a".repeat(n)), -score, PieceKind::Normal);
        }
        model.normalizer.add_dummy_prefix = false;
        let tokenizer = Tokenizer::from_model(model.clone()).unwrap();
        for length in (0..130).chain([400]) {
            let mut text = "a".repeat(length);
            for _ in 0..length / 9 {
                text.insert(rng.below(length), 'b');
            }
            assert_eq!(tokenizer.encode(&text), naive::encode(&model, &text), "{text}");
        }
    }
}

#[test]
fn every_character_survives() {
    let tokenizer = small("small");
    for c in '\0'..=char::MAX {
        let text = c.to_string();
        let expected = if c == '▁' { " " } else { &text };
        assert_eq!(tokenizer.decode(&tokenizer.encode(&text)).unwrap(), expected, "{c:?}");
    }
}

#[test]
fn every_text_survives() {
    let (tokenizer, mut rng) = (small("small"), Rng::new(3));
    for _ in 0..3000 {
        let text = if rng.chance(0.5) { random_text(&mut rng) } else { rng.unicode(30) };
        let ids = tokenizer.encode(&text);
        assert_eq!(tokenizer.decode(&ids).unwrap(), text.replace('▁', " "));
        assert!(ids.iter().all(|id| tokenizer.kind(*id) != Some(PieceKind::Control)));
    }
}

#[test]
fn spans_cover_the_text_in_order() {
    let mut rng = Rng::new(4);
    for name in ["small", "small-user", "small-rules"] {
        let tokenizer = small(name);
        for _ in 0..2000 {
            let text = if rng.chance(0.5) { random_text(&mut rng) } else { rng.unicode(20) };
            let tokens = tokenizer.encode_with_offsets(&text);
            assert_eq!(tokens.iter().map(|t| t.id).collect::<Vec<_>>(), tokenizer.encode(&text), "{text:?}");
            let mut end = 0;
            for token in &tokens {
                assert!(text.get(token.span.clone()).is_some(), "{text:?} {token:?}");
                assert!(token.span.start <= token.span.end && end <= token.span.start || name == "small-rules");
                end = token.span.end;
            }
            if name == "small" && !text.is_empty() {
                assert_eq!((tokens[0].span.start, end), (0, text.len()), "{text:?}");
            }
        }
    }
}

#[test]
fn one_tokenizer_serves_all_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<Tokenizer>();
    let (tokenizer, mut rng) = (small("small"), Rng::new(7));
    let texts: Vec<String> = (0..200).map(|_| rng.unicode(40)).collect();
    let expected: Vec<Vec<u32>> = texts.iter().map(|t| small("small").encode(t)).collect();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for (text, ids) in texts.iter().zip(&expected).cycle().take(1000) {
                    assert_eq!(tokenizer.encode(text), *ids);
                }
            });
        }
    });
}

#[test]
fn a_batch_equals_one_after_the_other() {
    let (tokenizer, mut rng) = (small("small-user"), Rng::new(5));
    let corpus = std::fs::read_to_string(format!("{DATA}/corpus.txt")).unwrap();
    let mut texts: Vec<String> = corpus.lines().map(str::to_owned).collect();
    texts.extend((0..500).map(|_| random_text(&mut rng)));
    let fresh = small("small-user");
    let one_by_one: Vec<Vec<u32>> = texts.iter().map(|t| fresh.encode(t)).collect();
    for _ in 0..3 {
        assert_eq!(tokenizer.encode_batch(&texts), one_by_one);
    }
    let mut appended = vec![7];
    texts.iter().for_each(|t| tokenizer.encode_into(t, &mut appended));
    assert_eq!(appended[1..], one_by_one.concat());
}

#[test]
fn streaming_equals_decoding_at_once_and_never_shows_half_a_character() {
    let mut rng = Rng::new(6);
    for name in ["small", "small-user", "small-rules"] {
        let tokenizer = small(name);
        for _ in 0..2000 {
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

/// SentencePiece rejects models with duplicate pieces or with NUL in a piece.
#[test]
fn trained_pieces_are_not_reserved_and_have_no_nul() {
    let control = ["e", "the", "▁king", "|"].map(String::from).to_vec();
    let trainer = Trainer { vocab_size: 285, character_coverage: 1.0, control, ..Trainer::default() };
    let text = "the king | the king\0the king | the king\0he he he seeks bees, trees; knees";
    let model = trainer.train(&[text; 9]).unwrap();
    let mut texts: Vec<&str> = model.pieces.iter().map(|p| p.text).collect();
    assert!(texts.iter().all(|text| !text.contains('\0')), "{texts:?}");
    texts.sort_unstable();
    texts.dedup();
    assert_eq!(texts.len(), 285);
    let tokenizer = Tokenizer::from_model(model).unwrap();
    let ids = tokenizer.encode("the king | e\0");
    assert!(ids.iter().all(|id| tokenizer.kind(*id) != Some(PieceKind::Control)), "{ids:?}");
    assert_eq!(tokenizer.decode(&ids).unwrap(), "the king | e\0");
}

#[test]
fn training_depends_on_text_and_settings_only() {
    let corpus = std::fs::read_to_string(format!("{DATA}/corpus.txt")).unwrap();
    let mut lines: Vec<&str> = corpus.split_inclusive('\n').collect();
    let trainer = Trainer {
        vocab_size: 1000,
        character_coverage: 0.995,
        control: vec!["[INST]".into(), "[/INST]".into()],
        ..Trainer::default()
    };
    let on = |threads, lines: &[&str]| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| trainer.train(lines)).unwrap().to_bytes()
    };
    let checked_in = std::fs::read(format!("{DATA}/tokenizers/small/tokenizer.model")).unwrap();
    assert!(on(1, &lines) == checked_in);
    lines.reverse();
    assert!(on(4, &lines) == checked_in);
}
