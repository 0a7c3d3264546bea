//! "Did you mean": the nearest of the names that there are.

/// The name nearest to `word`, where one is near enough to be meant.
#[must_use]
pub fn nearest<'a>(word: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase();
    names
        .into_iter()
        .map(|name| (strsim::jaro_winkler(&word, &name.to_lowercase()), name))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_words_are_found_and_far_ones_are_not() {
        let names = ["image", "command", "gpus"];
        assert_eq!(nearest("imgae", names), Some("image"));
        assert_eq!(nearest("gpu", names), Some("gpus"));
        assert_eq!(nearest("zebra", names), None);
    }
}
