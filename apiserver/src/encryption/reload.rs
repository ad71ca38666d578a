//! Takes a changed configuration over while the server runs (`--encryption-provider-config-automatic-reload`).

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use sha2::{Digest, Sha256};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{
    Encrypted,
    config::{ConfigError, Providers},
};

/// How often the file is looked at, as upstream.
const PERIOD: Duration = Duration::from_secs(60);

/// A configuration file, and what it said when it was last read.
pub struct ConfigFile {
    path: PathBuf,
    digest: Vec<u8>,
}

impl ConfigFile {
    /// The file and what it says.
    pub fn open(path: &Path) -> Result<(ConfigFile, Providers), ConfigError> {
        let (text, digest) = read(path)?;
        let providers = Providers::parse(&text)?;
        Ok((ConfigFile { path: path.to_path_buf(), digest }, providers))
    }

    /// What it says, if that is something new. What cannot be followed is read again the next time.
    pub fn changed(&mut self) -> Result<Option<Providers>, ConfigError> {
        let (text, digest) = read(&self.path)?;
        if digest == self.digest {
            return Ok(None);
        }
        let providers = Providers::parse(&text)?;
        self.digest = digest;
        Ok(Some(providers))
    }
}

/// The text of a file, and what tells it from others.
fn read(path: &Path) -> Result<(String, Vec<u8>), ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConfigError::Read { path: path.to_path_buf(), source })?;
    let digest = Sha256::digest(&text).to_vec();
    Ok((text, digest))
}

/// Looks at the file now and then, until `stop`.
pub async fn follow(encrypted: Arc<Encrypted>, mut file: ConfigFile, stop: CancellationToken) {
    let forever = async {
        loop {
            sleep(PERIOD).await;
            match file.changed() {
                Ok(None) => {}
                Ok(Some(providers)) => {
                    encrypted.take_over(providers);
                    tracing::info!(path = %file.path.display(), "a new encryption configuration is in force");
                }
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::error!(error, "the encryption configuration stays as it was");
                }
            }
        }
    };
    stop.run_until_cancelled(forever).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_file_is_taken_over_and_one_that_cannot_be_followed_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("encryption.yaml");
        let text = |provider: &str| {
            format!(
                "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n- resources: [secrets]\n  providers: [{provider}]"
            )
        };
        let key = "{aesgcm: {keys: [{name: key1, secret: MDEyMzQ1Njc4OWFiY2RlZg==}]}}";
        assert!(matches!(ConfigFile::open(&path), Err(ConfigError::Read { .. })));
        std::fs::write(&path, text("{identity: {}}")).unwrap();
        let (mut file, _) = ConfigFile::open(&path).unwrap();
        assert!(file.changed().unwrap().is_none());
        std::fs::write(&path, text("{rot13: {}}")).unwrap();
        assert!(file.changed().is_err() && file.changed().is_err(), "said until it is mended");
        std::fs::write(&path, text(key)).unwrap();
        assert!(file.changed().unwrap().is_some());
        assert!(file.changed().unwrap().is_none());
    }
}
