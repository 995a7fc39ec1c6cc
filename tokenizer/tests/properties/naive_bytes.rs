//! Byte-level BPE by its definition: a backtracking matcher for the patterns, then one merge at a time.

/// A vocabulary; tokens write each byte as [`char_of`] does.
#[derive(Clone, Debug, Default)]
pub struct Model {
    /// The tokens in the order of their ids.
    pub tokens: Vec<String>,
    /// Pairs of tokens in the order of their ranks.
    pub merges: Vec<(String, String)>,
    pub pattern: usize,
    pub digits_apart: bool,
    pub ignore_merges: bool,
}

/// The regular expressions of the patterns, as files spell them.
pub const PATTERNS: [&str; 4] = [
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    concat!(
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|",
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|",
        r"\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    ),
];

/// The characters that tests use, of all classes.
pub const LETTERS: [&str; 24] = [
    "a", "s", "L", "ll", "A", "ǅ", "ʰ", "中", "佽", "é", "\u{301}", "1", "²", " ", " ", "\t", "\u{3000}", "\n", "\r",
    "'", "!", "/", "ſ", "😀",
];

/// The general category of the characters of [`LETTERS`].
fn category(c: char) -> &'static str {
    match c {
        'a'..='z' | 'é' | 'ſ' => "Ll",
        'A'..='Z' => "Lu",
        'ǅ' => "Lt",
        'ʰ' => "Lm",
        '中' | '佽' => "Lo",
        '\u{301}' => "Mn",
        '1' | '²' => "N",
        ' ' | '\t' | '\n' | '\r' | '\u{3000}' => "space",
        _ => "other",
    }
}

/// An item of an alternative: a class of characters, and how many of them at least and at most.
struct Item(fn(char) -> bool, usize, usize);

const MANY: usize = usize::MAX;

fn letter(c: char) -> bool {
    category(c).starts_with('L')
}
fn number(c: char) -> bool {
    category(c) == "N"
}
fn space(c: char) -> bool {
    category(c) == "space"
}
fn line_end(c: char) -> bool {
    matches!(c, '\r' | '\n')
}
fn blank(c: char) -> bool {
    c == ' '
}
fn apart(c: char) -> bool {
    !line_end(c) && !letter(c) && !number(c)
}
fn other(c: char) -> bool {
    !space(c) && !letter(c) && !number(c)
}
fn upper(c: char) -> bool {
    matches!(category(c), "Lu" | "Lt" | "Lm" | "Lo" | "Mn")
}
fn lower(c: char) -> bool {
    matches!(category(c), "Ll" | "Lm" | "Lo" | "Mn")
}

/// The alternatives of a pattern after its contractions, in order; with `true`, `(?!\S)` follows.
fn alternatives(pattern: usize) -> Vec<(Vec<Item>, bool)> {
    let spaces = || [(vec![Item(space, 1, MANY)], true), (vec![Item(space, 1, MANY)], false)];
    let mut all = match pattern {
        0 => vec![
            (vec![Item(blank, 0, 1), Item(letter, 1, MANY)], false),
            (vec![Item(blank, 0, 1), Item(number, 1, MANY)], false),
            (vec![Item(blank, 0, 1), Item(other, 1, MANY)], false),
        ],
        1 | 2 => vec![
            (vec![Item(apart, 0, 1), Item(letter, 1, MANY)], false),
            (vec![Item(number, 1, if pattern == 1 { 3 } else { 1 })], false),
            (vec![Item(blank, 0, 1), Item(other, 1, MANY), Item(line_end, 0, MANY)], false),
            (vec![Item(space, 0, MANY), Item(line_end, 1, MANY)], false),
        ],
        _ => vec![
            (vec![Item(apart, 0, 1), Item(upper, 0, MANY), Item(lower, 1, MANY)], false),
            (vec![Item(apart, 0, 1), Item(upper, 1, MANY), Item(lower, 0, MANY)], false),
            (vec![Item(number, 1, 1)], false),
            (vec![Item(blank, 0, 1), Item(other, 1, MANY), Item(|c| line_end(c) || c == '/', 0, MANY)], false),
            (vec![Item(space, 0, MANY), Item(line_end, 1, MANY)], false),
        ],
    };
    all.extend(spaces());
    all
}

/// The end of the first match of the items at `at`, in the order in which a backtracking engine tries them.
fn matched(text: &[char], at: usize, items: &[Item], no_word_after: bool) -> Option<usize> {
    let Some((Item(class, least, most), rest)) = items.split_first() else {
        let blocked = no_word_after && text.get(at).is_some_and(|c| !space(*c));
        return (!blocked).then_some(at);
    };
    let run = text[at..].iter().take_while(|c| class(**c)).count().min(*most);
    (*least..=run).rev().find_map(|count| matched(text, at + count, rest, no_word_after))
}

fn contraction(text: &[char], pattern: usize) -> Option<usize> {
    let fold = |c: &char| {
        if pattern == 0 {
            *c
        } else if *c == 'ſ' {
            's'
        } else {
            c.to_ascii_lowercase()
        }
    };
    let folded: String = text.iter().take(3).map(fold).collect();
    let found = ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d"].into_iter().find(|short| folded.starts_with(short));
    found.filter(|_| pattern < 3).map(str::len)
}

/// The words of a text.
pub fn words(model: &Model, text: &str) -> Vec<String> {
    let chars: Vec<char> = text.chars().collect();
    let mut texts: Vec<&[char]> = vec![&chars];
    if model.digits_apart {
        texts = chars.chunk_by(|a, b| !number(*a) && !number(*b)).collect();
    }
    let mut out = Vec::new();
    for text in texts {
        let mut at = 0;
        while at < text.len() {
            let len = contraction(&text[at..], model.pattern);
            let end = len.map(|len| at + len).or_else(|| {
                let all = alternatives(model.pattern);
                all.iter().find_map(|(items, no_word_after)| matched(text, at, items, *no_word_after))
            });
            let end = end.expect("the patterns match everywhere");
            out.push(text[at..end].iter().collect());
            at = end;
        }
    }
    out
}

/// The character that stands for a byte.
pub fn char_of(byte: u8) -> char {
    let printable = |b: u8| matches!(b, 33..=126 | 161..=172 | 174..=255);
    let shifted = (0..byte).filter(|b| !printable(*b)).count() as u32;
    if printable(byte) { byte.into() } else { char::from_u32(256 + shifted).unwrap() }
}

pub fn encode(model: &Model, text: &str) -> Vec<u32> {
    let id = |token: &str| model.tokens.iter().position(|t| t == token).map(|id| id as u32);
    let mut out = Vec::new();
    for word in words(model, text) {
        let word: String = word.bytes().map(char_of).collect();
        if let Some(id) = id(&word).filter(|_| model.ignore_merges) {
            out.push(id);
            continue;
        }
        // A byte without a token is dropped.
        let mut symbols: Vec<String> = word.chars().map(String::from).filter(|c| id(c).is_some()).collect();
        let rank = |pair: &[String]| model.merges.iter().position(|(a, b)| *a == pair[0] && *b == pair[1]);
        while let Some((_, at)) = symbols.windows(2).enumerate().filter_map(|(at, pair)| Some((rank(pair)?, at))).min()
        {
            let right = symbols.remove(at + 1);
            symbols[at].push_str(&right);
        }
        out.extend(symbols.iter().map(|symbol| id(symbol).expect("a token")));
    }
    out
}

/// The model as a `tokenizer.json`.
pub fn json(model: &Model) -> String {
    let bytes = |regex| serde_json::json!({"type": "ByteLevel", "add_prefix_space": false, "use_regex": regex});
    let mut steps = if model.digits_apart {
        vec![serde_json::json!({"type": "Digits", "individual_digits": true})]
    } else {
        Vec::new()
    };
    if model.pattern == 0 {
        steps.push(bytes(true));
    } else {
        let pattern = serde_json::json!({"Regex": PATTERNS[model.pattern]});
        steps.push(serde_json::json!({"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": false}));
        steps.push(bytes(false));
    }
    let vocab: serde_json::Map<_, _> =
        model.tokens.iter().enumerate().map(|(id, token)| (token.clone(), serde_json::json!(id))).collect();
    serde_json::json!({
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": steps},
        "decoder": bytes(true),
        "model": {"type": "BPE", "vocab": vocab, "merges": model.merges, "ignore_merges": model.ignore_merges}
    })
    .to_string()
}
