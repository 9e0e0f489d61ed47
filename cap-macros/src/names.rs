//! The rules for topics and groups: an attribute rejects the names that the bus would reject at its start. A test in
//! cap-core checks that both have the same rules.

/// The longest name in characters.
const MAX_CHARACTERS: usize = 200;
/// The longest name in bytes: the size of a short string in AMQP.
const MAX_BYTES: usize = 255;

/// Checks a topic to subscribe to. The error continues after the topic.
pub(crate) fn check_topic(topic: &str) -> Result<(), String> {
    check_words(topic)?;
    match topic.split('.').find(|word| word.len() > 1 && word.contains(['*', '#'])) {
        Some(word) => Err(format!("has a wildcard inside the word {word:?}; it must be a word of its own")),
        None => Ok(()),
    }
}

/// Checks the name of a group. The error continues after the name.
pub(crate) fn check_group(group: &str) -> Result<(), String> {
    check_words(group)?;
    if group.contains(['*', '#']) {
        return Err("has a wildcard character".to_owned());
    }
    Ok(())
}

fn check_words(name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err("is empty".to_owned());
    }
    let length = name.chars().count();
    if length > MAX_CHARACTERS {
        return Err(format!("has {length} characters; at most {MAX_CHARACTERS} are allowed"));
    }
    if name.len() > MAX_BYTES {
        return Err(format!("takes {} bytes; at most {MAX_BYTES} are allowed", name.len()));
    }
    if let Some(bad) = name.chars().find(|c| c.is_control() || c.is_whitespace()) {
        return Err(format!("has the character {bad:?}"));
    }
    if name.split('.').any(str::is_empty) {
        return Err("has an empty word: a dot at an end, or two in a row".to_owned());
    }
    Ok(())
}
