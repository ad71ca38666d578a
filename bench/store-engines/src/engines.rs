//! The candidates, each with its default settings and full durability.

use std::{
    fs::File,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
};

/// Makes writes durable.
pub trait Engine: Send {
    /// One transaction; on the disk when this returns.
    fn commit(&mut self, batch: &mut dyn Iterator<Item = (&str, &[u8])>);
}

/// Copy-on-write B-tree in Rust.
pub struct Redb(redb::Database);

const TABLE: redb::TableDefinition<&str, &[u8]> = redb::TableDefinition::new("keys");

impl Redb {
    /// A new database.
    pub fn open(directory: &Path) -> Redb {
        Redb(redb::Database::create(directory.join("redb")).expect("open redb"))
    }
}

impl Engine for Redb {
    fn commit(&mut self, batch: &mut dyn Iterator<Item = (&str, &[u8])>) {
        let transaction = self.0.begin_write().expect("begin");
        {
            let mut table = transaction.open_table(TABLE).expect("table");
            for (key, value) in batch {
                table.insert(key, value).expect("insert");
            }
        }
        transaction.commit().expect("commit");
    }
}

/// Log-structured merge tree in Rust.
pub struct Fjall {
    database: fjall::Database,
    keys: fjall::Keyspace,
}

impl Fjall {
    /// A new database.
    pub fn open(directory: &Path) -> Fjall {
        let database = fjall::Database::builder(directory).open().expect("open fjall");
        let keys = database.keyspace("keys", fjall::KeyspaceCreateOptions::default).expect("keyspace");
        Fjall { database, keys }
    }
}

impl Engine for Fjall {
    fn commit(&mut self, batch: &mut dyn Iterator<Item = (&str, &[u8])>) {
        let mut transaction = self.database.batch().durability(Some(fjall::PersistMode::SyncData));
        for (key, value) in batch {
            transaction.insert(&self.keys, key, value);
        }
        transaction.commit().expect("commit");
    }
}

/// LMDB.
pub struct Heed {
    environment: heed::Env,
    keys: heed::Database<'static, heed::types::Str, heed::types::Bytes>,
}

impl Heed {
    /// A new database.
    pub fn open(directory: &Path) -> Heed {
        let mut options = heed::EnvOpenOptions::new();
        options.map_size(8 << 30);
        // SAFETY: nobody else opens or changes this file while it is mapped.
        let environment = unsafe { options.open(directory) }.expect("open lmdb");
        let transaction = environment.write_txn().expect("begin");
        let keys = environment
            .create_databases_and_commit(transaction, |opener, transaction| {
                opener.create_database(transaction, None).map(heed::CommitOrAbort::<_, ()>::Commit)
            })
            .expect("database")
            .unwrap_commit();
        Heed { environment: environment.clone(), keys }
    }
}

impl Engine for Heed {
    fn commit(&mut self, batch: &mut dyn Iterator<Item = (&str, &[u8])>) {
        let mut transaction = self.environment.write_txn().expect("begin");
        for (key, value) in batch {
            self.keys.put(&mut transaction, key, value).expect("put");
        }
        transaction.commit().expect("commit");
    }
}

/// An append-only, checksummed log in segments that are filled with zeros ahead of their use, so that
/// a commit changes no metadata; written past the page cache, each commit in blocks of its own.
pub struct Log {
    segment: File,
    end: usize,
    next: std::sync::mpsc::Receiver<File>,
    buffer: Vec<u8>,
}

const SEGMENT: usize = 64 << 20;
const BLOCK: usize = 4096;

impl Log {
    /// A new log.
    pub fn open(directory: &Path) -> Log {
        let directory = directory.to_owned();
        let (sender, next) = std::sync::mpsc::sync_channel(0);
        std::thread::spawn(move || {
            for number in 0.. {
                if sender.send(Log::segment(&directory, number)).is_err() {
                    return;
                }
            }
        });
        let segment = next.recv().expect("segment");
        Log { segment, end: 0, next, buffer: Vec::new() }
    }

    fn segment(directory: &Path, number: u64) -> File {
        let file = File::options()
            .create(true)
            .write(true)
            .custom_flags(nix::libc::O_DIRECT | nix::libc::O_DSYNC)
            .open(directory.join(format!("log-{number}")))
            .expect("create");
        let zeros = vec![0; (1 << 20) + BLOCK];
        let zeros = &zeros[zeros.as_ptr().align_offset(BLOCK)..][..1 << 20];
        for offset in (0..SEGMENT).step_by(zeros.len()) {
            file.write_all_at(zeros, offset as u64).expect("fill");
        }
        file.sync_all().expect("sync");
        file
    }
}

impl Engine for Log {
    fn commit(&mut self, batch: &mut dyn Iterator<Item = (&str, &[u8])>) {
        let buffer = &mut self.buffer;
        buffer.clear();
        buffer.reserve(4 << 20);
        let start = buffer.as_ptr().align_offset(BLOCK);
        buffer.resize(start + 8, 0);
        for (key, value) in batch {
            buffer.extend((key.len() as u32).to_le_bytes());
            buffer.extend((value.len() as u32).to_le_bytes());
            buffer.extend(key.as_bytes());
            buffer.extend(value);
        }
        let length = (buffer.len() - start - 8) as u32;
        let checksum = crc32fast::hash(&buffer[start + 8..]);
        buffer[start..start + 4].copy_from_slice(&length.to_le_bytes());
        buffer[start + 4..start + 8].copy_from_slice(&checksum.to_le_bytes());
        buffer.resize(start + (buffer.len() - start).next_multiple_of(BLOCK), 0);
        let blocks = &buffer[start..];
        if self.end + blocks.len() > SEGMENT {
            self.segment = self.next.recv().expect("segment");
            self.end = 0;
        }
        self.segment.write_all_at(blocks, self.end as u64).expect("write");
        self.end += blocks.len();
    }
}
