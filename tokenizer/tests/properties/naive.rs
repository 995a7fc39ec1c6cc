//! SentencePiece's BPE by its definition: strings, one merge at a time.

use std::collections::HashMap;

use halfbyte_tokenizer::{ModelFile, PieceKind};

pub fn encode(model: &ModelFile, text: &str) -> Vec<u32> {
    let spec = &model.normalizer;
    let dummy = if spec.add_dummy_prefix && !text.is_empty() { " " } else { "" };
    let mut text = format!("{dummy}{text}");
    if spec.escape_whitespaces {
        text = text.replace(' ', "▁");
    }
    let kind = |k: PieceKind| model.pieces.iter().position(move |p| p.kind == k);
    let user = || model.pieces.iter().filter(|p| p.kind == PieceKind::UserDefined);
    let id = |text: &str| {
        model.pieces.iter().position(|p| {
            p.text == text && matches!(p.kind, PieceKind::Normal | PieceKind::UserDefined | PieceKind::Unused)
        })
    };
    // Each symbol: its text, and whether it is user-defined and so never merges.
    let mut symbols: Vec<(String, bool)> = Vec::new();
    let mut rest = text.as_str();
    while let Some(c) = rest.chars().next() {
        let found = user().map(|p| p.text).filter(|t| rest.starts_with(t)).max_by_key(|t| t.len());
        symbols.push((found.map_or(c.to_string(), str::to_owned), found.is_some()));
        rest = &rest[symbols.last().unwrap().0.len()..];
    }
    let mut made_of = HashMap::new();
    let mut pair = |symbols: &[(String, bool)], i: usize| {
        let (left, right) = (&symbols[i], &symbols[i + 1]);
        let merged = format!("{}{}", left.0, right.0);
        let piece = model.pieces.get(id(&merged).filter(|_| !left.1 && !right.1)? as u32)?;
        if piece.kind == PieceKind::Unused {
            made_of.insert(merged, (left.0.clone(), right.0.clone()));
        }
        Some(piece.score)
    };
    let mut scores: Vec<Option<f32>> = (1..symbols.len()).map(|i| pair(&symbols, i - 1)).collect();
    // 0 goes before −0.
    while let Some(best) = scores.iter().flatten().copied().max_by(f32::total_cmp) {
        let i = scores.iter().position(|s| s.is_some_and(|s| s.to_bits() == best.to_bits())).unwrap();
        let right = symbols.remove(i + 1).0;
        symbols[i].0.push_str(&right);
        scores.remove(i);
        if i > 0 {
            scores[i - 1] = pair(&symbols, i - 1);
        }
        if i < scores.len() {
            scores[i] = pair(&symbols, i);
        }
    }
    let mut out = Vec::new();
    let mut pending: Vec<String> = symbols.into_iter().map(|s| s.0).rev().collect();
    let mut last_unknown = false;
    while let Some(text) = pending.pop() {
        if let Some((left, right)) = made_of.get(&text) {
            pending.extend([right.clone(), left.clone()]);
            continue;
        }
        // An unused piece of one character was not merged from two others, so it cannot be split.
        let id = id(&text).filter(|id| model.pieces.get(*id as u32).is_some_and(|p| p.kind != PieceKind::Unused));
        let unknown = id.is_none();
        match id {
            Some(id) => out.push(id as u32),
            None if model.byte_fallback => {
                let first = kind(PieceKind::Byte).unwrap() as u32;
                out.extend(text.bytes().map(|b| first + u32::from(b)));
            }
            None if last_unknown => {}
            None => out.push(kind(PieceKind::Unknown).unwrap() as u32),
        }
        last_unknown = unknown;
    }
    out
}
