//! All mappings of a cache, by file and by number.
//!
//! An open that finds no mapping of its file asks for the file's length, which takes time, and looks again. The mapping that it
//! then adds must not come after one that has been there meanwhile, and has lengthened the file: a [`Ticket`] tells.

use super::Mapping;
use crate::file::FileId;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

/// Guarded by its lock (`Rank::Mappings`). Numbers are never reused.
#[derive(Default)]
pub(crate) struct MappingTable {
    by_id: BTreeMap<u32, Arc<Mapping>>,
    by_file: BTreeMap<FileId, u32>,
    last: u32,
    /// Opens that ask for their file's length: the file, and whether a mapping of it has gone since.
    asking: BTreeMap<u64, (FileId, bool)>,
    last_ticket: u64,
}

/// Of an open that asks for a file's length.
pub(crate) struct Ticket(u64);

impl MappingTable {
    pub(crate) fn next_id(&mut self) -> u32 {
        self.last = self
            .last
            .checked_add(1)
            .expect("4 billion files were opened");
        self.last
    }

    pub(crate) fn insert(&mut self, mapping: Arc<Mapping>) {
        self.by_file.insert(mapping.file, mapping.id);
        self.by_id.insert(mapping.id, mapping);
    }

    pub(crate) fn by_file(&self, file: FileId) -> Option<&Arc<Mapping>> {
        self.by_id.get(self.by_file.get(&file)?)
    }

    pub(crate) fn get(&self, id: u32) -> Option<Arc<Mapping>> {
        self.by_id.get(&id).cloned()
    }

    pub(crate) fn remove(&mut self, id: u32) {
        if let Some(m) = self.by_id.remove(&id) {
            self.by_file.remove(&m.file);
            for (file, gone) in self.asking.values_mut() {
                *gone |= *file == m.file;
            }
        }
    }

    /// The file's length is asked for from now on.
    pub(crate) fn begin_asking(&mut self, file: FileId) -> Ticket {
        self.last_ticket += 1;
        self.asking.insert(self.last_ticket, (file, false));
        Ticket(self.last_ticket)
    }

    /// It has been told. True when no mapping of the file has gone since it was asked for.
    pub(crate) fn end_asking(&mut self, ticket: Ticket) -> bool {
        matches!(self.asking.remove(&ticket.0), Some((_, false)))
    }

    /// In the order of their numbers, from the one after `id` on.
    pub(crate) fn iter_after(&self, id: u32) -> impl Iterator<Item = &Arc<Mapping>> {
        self.by_id
            .range((Bound::Excluded(id), Bound::Unbounded))
            .map(|(_, m)| m)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Mapping>> {
        self.by_id.values()
    }
}
