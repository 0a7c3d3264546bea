//! Loose matching of GPU model names.

/// Whether `asked` names `model`, by whole words and without regard to case.
///
/// Words are runs of letters and digits; the words of `asked` must occur in
/// `model` in that order. `A100` and `A100 80GB` find
/// `NVIDIA A100-SXM4-80GB`, `A10` does not. A filter without words matches
/// everything.
#[must_use]
pub fn model_matches(asked: &str, model: &str) -> bool {
    let mut have = words(model);
    words(asked).all(|word| have.any(|w| w.eq_ignore_ascii_case(word)))
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::model_matches;

    #[test]
    fn whole_words_only() {
        let sxm = "NVIDIA A100-SXM4-80GB";
        assert!(model_matches("A100", sxm));
        assert!(model_matches("a100", sxm));
        assert!(model_matches("A100 80GB", sxm));
        assert!(model_matches("A100-SXM4-80GB", sxm));
        assert!(!model_matches("A10", sxm));
        assert!(!model_matches("80GB A100", sxm), "order counts");
        assert!(!model_matches("A100", "NVIDIA A10"));
        assert!(!model_matches("L4", "NVIDIA L40S"));
        assert!(model_matches("RTX 4090", "NVIDIA GeForce RTX 4090"));
        assert!(!model_matches("RTX 4090 D", "NVIDIA GeForce RTX 4090"));
        assert!(model_matches("", sxm));
        assert!(!model_matches("H100", ""));
    }
}
