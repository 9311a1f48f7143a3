//! From the bytes of tokens to whole characters, up to a stop word.

/// Text that grows token by token.
pub struct Stream {
    stops: Vec<Vec<u8>>,
    /// Bytes that may belong to a stop word or to an incomplete character.
    held: Vec<u8>,
    /// The text returned so far.
    text: String,
    /// Bytes of it that the caller has seen.
    seen: usize,
    stopped: bool,
}

impl Stream {
    /// An empty text that ends before the first of `stops`.
    pub fn new(stops: &[String]) -> Self {
        Stream {
            stops: stops.iter().map(|stop| stop.clone().into_bytes()).collect(),
            held: Vec::new(),
            text: String::new(),
            seen: 0,
            stopped: false,
        }
    }

    /// Adds the bytes of a token; returns the text that no stop word can remove any more.
    pub fn push(&mut self, bytes: &[u8]) -> &str {
        self.held.extend_from_slice(bytes);
        let found = self.stops.iter().filter_map(|stop| {
            let mut places = self.held.windows(stop.len());
            places.position(|place| place == stop)
        });
        if let Some(end) = found.min() {
            self.held.truncate(end);
            self.stopped = true;
            return self.finish();
        }
        // What may be the start of a stop word is held back.
        let waits = |end: usize| {
            let tail = &self.held[end..];
            self.stops.iter().any(|stop| stop.starts_with(tail))
        };
        let end = (0..self.held.len()).find(|&end| waits(end));
        self.give(end.unwrap_or(self.held.len()), false)
    }

    /// Ends the text and returns what was held back; bytes that are not a character become U+FFFD.
    pub fn finish(&mut self) -> &str {
        self.give(self.held.len(), true)
    }

    /// True after a stop word.
    pub fn stopped(&self) -> bool {
        self.stopped
    }

    /// All of the text.
    pub fn text(&self) -> &str {
        &self.text
    }

    fn give(&mut self, end: usize, last: bool) -> &str {
        let mut done = 0;
        while done < end {
            match std::str::from_utf8(&self.held[done..end]) {
                Ok(text) => {
                    self.text += text;
                    done = end;
                }
                Err(error) => {
                    let valid = done + error.valid_up_to();
                    self.text += &String::from_utf8_lossy(&self.held[done..valid]);
                    done = valid;
                    match error.error_len() {
                        Some(wrong) => done += wrong,
                        // An incomplete character: the rest may come.
                        None if !last => break,
                        None => done = end,
                    }
                    self.text.push(char::REPLACEMENT_CHARACTER);
                }
            }
        }
        self.held.drain(..done);
        let seen = std::mem::replace(&mut self.seen, self.text.len());
        &self.text[seen..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(stops: &[&str]) -> Stream {
        Stream::new(
            &stops
                .iter()
                .map(|&stop| stop.to_owned())
                .collect::<Vec<_>>(),
        )
    }

    #[test]
    fn a_character_comes_whole() {
        let mut stream = stream(&[]);
        let bytes = "aé漢".as_bytes();
        let given: Vec<String> = bytes
            .iter()
            .map(|&b| stream.push(&[b]).to_owned())
            .collect();
        assert_eq!(given, ["a", "", "é", "", "", "漢"]);
        assert_eq!(stream.finish(), "");
        assert_eq!(stream.text(), "aé漢");
    }

    #[test]
    fn bytes_that_are_not_a_character_are_marked() {
        let mut stream = stream(&[]);
        assert_eq!(stream.push(&[0xff, b'a']), "\u{fffd}a");
        assert_eq!(stream.push(&[0xe6, 0xbc]), "");
        assert_eq!(stream.push(b"b"), "\u{fffd}b");
        assert_eq!(stream.push(&[0xe6]), "");
        assert_eq!(stream.finish(), "\u{fffd}");
    }

    #[test]
    fn a_stop_word_is_never_shown() {
        let mut stream = stream(&["Human:", "\n\n"]);
        assert_eq!(stream.push(b"one Hu"), "one ");
        assert_eq!(stream.push(b"mid\n"), "Humid");
        assert_eq!(stream.push(b"two Human"), "\ntwo ");
        assert_eq!(stream.push(b": three"), "");
        assert!(stream.stopped());
        assert_eq!(stream.text(), "one Humid\ntwo ");
    }
}
