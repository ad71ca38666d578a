//! `--token-auth-file`: tokens and their users, a line each: `token,user,uid,"group1,group2"`.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use ring::digest::{SHA256, digest};

use crate::request::User;

/// The tokens of a file. They are kept as digests, so that looking one up takes as long whatever it is.
#[derive(Default)]
pub struct TokenFile(HashMap<Vec<u8>, User>);

/// Why the file is of no use.
#[derive(Debug, thiserror::Error)]
pub enum TokenFileError {
    /// It cannot be read.
    #[error("failed to read the token file {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A line does not say what it should.
    #[error("the token file {} is invalid in line {line}: {reason}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// Why. Never names the token.
        reason: &'static str,
    },
}

impl TokenFile {
    /// Reads a file.
    pub fn read(path: &Path) -> Result<TokenFile, TokenFileError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| TokenFileError::Read { path: path.into(), source })?;
        TokenFile::parse(&text).map_err(|(line, reason)| TokenFileError::Line {
            path: path.into(),
            line,
            reason,
        })
    }

    fn parse(text: &str) -> Result<TokenFile, (usize, &'static str)> {
        let mut users = HashMap::new();
        for (index, line) in text.lines().enumerate() {
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            let fail = |reason| (index + 1, reason);
            let columns = columns(line).ok_or_else(|| fail("a quotation has no end"))?;
            let [token, name, uid, rest @ ..] = columns.as_slice() else {
                return Err(fail("want token, user and uid"));
            };
            if token.is_empty() || name.is_empty() {
                return Err(fail("the token and the user must not be empty"));
            }
            let groups = rest.first().map(String::as_str).unwrap_or_default().split(',').map(str::trim);
            let groups = groups.filter(|group| !group.is_empty()).chain(["system:authenticated"]);
            let user = User {
                name: name.clone(),
                uid: uid.clone(),
                groups: groups.map(str::to_string).collect(),
                ..User::default()
            };
            // As upstream: of two lines with one token the last one counts.
            users.insert(key(token), user);
        }
        Ok(TokenFile(users))
    }

    /// The user with this token.
    pub(super) fn user_of(&self, token: &str) -> Option<User> {
        if self.0.is_empty() { None } else { self.0.get(&key(token)).cloned() }
    }
}

fn key(token: &str) -> Vec<u8> {
    digest(&SHA256, token.as_bytes()).as_ref().to_vec()
}

/// A line's columns: separated by commas, quoted where they hold some.
fn columns(line: &str) -> Option<Vec<String>> {
    let mut columns = vec![String::new()];
    let mut is_quoted = false;
    let mut characters = line.chars().peekable();
    while let Some(character) = characters.next() {
        let column = columns.last_mut()?;
        match character {
            '"' if is_quoted && characters.next_if_eq(&'"').is_some() => column.push('"'),
            '"' => is_quoted = !is_quoted,
            ',' if !is_quoted => columns.push(String::new()),
            ' ' if column.is_empty() && !is_quoted => {}
            other => column.push(other),
        }
    }
    (!is_quoted).then_some(columns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_makes_a_user() {
        let file = TokenFile::parse("# people\nt1,ann,7,\"dev,ops\"\n\nt2,bob,8\nt3, \"eve\"\"s\", 9, one\n")
            .unwrap();
        let ann = file.user_of("t1").unwrap();
        assert_eq!((ann.name.as_str(), ann.uid.as_str()), ("ann", "7"));
        assert_eq!(ann.groups, ["dev", "ops", "system:authenticated"]);
        assert_eq!(file.user_of("t2").unwrap().groups, ["system:authenticated"]);
        assert_eq!(file.user_of("t3").unwrap().name, "eve\"s");
        assert_eq!(file.user_of("t4"), None);
        assert_eq!(file.user_of(""), None);
    }

    #[test]
    fn a_bad_line_is_named() {
        let fault = |text: &str| TokenFile::parse(text).err();
        assert_eq!(fault("a,b,c\nx,y").unwrap().0, 2);
        assert_eq!(fault("a,\"b,c").unwrap().1, "a quotation has no end");
        assert_eq!(fault(",b,c").unwrap().0, 1);
    }
}
