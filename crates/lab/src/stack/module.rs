//! The modules of this process: where they lie, their unwind tables, and the names of their functions.
//!
//! **Invariants.** UNWIND-1 of the room.
#![allow(unsafe_code)]

use object::{Object, ObjectSymbol, SymbolKind};
use std::ffi::{CStr, c_int, c_void};
use std::ops::Range;

/// One loaded module.
pub(super) struct Module {
    /// Empty for the program itself.
    path: String,
    /// What is added to an address of the file.
    bias: u64,
    segments: Vec<Range<u64>>,
    /// Its `.eh_frame_hdr`.
    pub eh_frame_hdr: &'static [u8],
    /// The functions by address of the file, once they have been read.
    symbols: Option<Vec<Symbol>>,
}

struct Symbol {
    start: u64,
    size: u64,
    name: String,
}

/// A place in a function.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Place {
    /// The function's name.
    pub symbol: String,
    /// Bytes from its beginning.
    pub offset: u64,
    /// Its bytes.
    pub size: u64,
    /// The library it is of, unless it is the program's.
    pub module: Option<String>,
}

impl Module {
    /// All modules with unwind tables.
    pub fn all() -> Vec<Module> {
        let mut modules: Vec<Module> = Vec::new();
        // SAFETY: `each` gets the vector back, for the time of this call only.
        unsafe { libc::dl_iterate_phdr(Some(each), (&raw mut modules).cast()) };
        modules
    }

    /// Is this address of the module?
    pub fn contains(&self, address: u64) -> bool {
        self.segments.iter().any(|s| s.contains(&address))
    }

    /// The bytes from `address` to the end of its segment.
    pub fn from(&self, address: u64) -> Option<&'static [u8]> {
        let segment = self.segments.iter().find(|s| s.contains(&address))?;
        // SAFETY: UNWIND-1: a loaded, readable segment.
        Some(unsafe {
            std::slice::from_raw_parts(address as *const u8, (segment.end - address) as usize)
        })
    }

    /// The function that holds `within`, and how far into it `ip` is.
    pub fn place(&mut self, within: u64, ip: u64) -> Place {
        let name = self.path.rsplit('/').next().unwrap_or_default();
        let module = (!name.is_empty()).then(|| name.to_owned());
        let path = match self.path.as_str() {
            "" => "/proc/self/exe",
            path => path,
        };
        let symbols = self.symbols.get_or_insert_with(|| read_symbols(path));
        let at = within.wrapping_sub(self.bias);
        let next = symbols.partition_point(|s| s.start <= at);
        let found = next.checked_sub(1).map(|i| &symbols[i]);
        match found.filter(|s| at < s.start + s.size.max(1)) {
            Some(s) => Place {
                symbol: s.name.clone(),
                offset: ip.wrapping_sub(self.bias) - s.start,
                size: s.size,
                module,
            },
            None => Place {
                symbol: format!("{at:#x}"),
                offset: 0,
                size: 0,
                module,
            },
        }
    }
}

/// Adds one module to the vector behind `data`.
unsafe extern "C" fn each(
    info: *mut libc::dl_phdr_info,
    _size: libc::size_t,
    data: *mut c_void,
) -> c_int {
    // SAFETY: the loader gives a valid record; `data` is the vector that `all` passed.
    let (info, modules) = unsafe { (&*info, &mut *data.cast::<Vec<Module>>()) };
    if info.dlpi_phdr.is_null() {
        return 0;
    }
    // SAFETY: so many headers are there.
    let headers = unsafe { std::slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into()) };
    let range = |h: &libc::Elf64_Phdr| {
        let start = info.dlpi_addr.wrapping_add(h.p_vaddr);
        start..start + h.p_memsz
    };
    let Some(header) = headers.iter().find(|h| h.p_type == libc::PT_GNU_EH_FRAME) else {
        return 0;
    };
    let header = range(header);
    // SAFETY: UNWIND-1: the loader mapped it.
    let eh_frame_hdr = unsafe {
        std::slice::from_raw_parts(
            header.start as *const u8,
            (header.end - header.start) as usize,
        )
    };
    let name = match info.dlpi_name.is_null() {
        true => String::new(),
        // SAFETY: the loader's string.
        false => unsafe { CStr::from_ptr(info.dlpi_name) }
            .to_string_lossy()
            .into_owned(),
    };
    modules.push(Module {
        path: name,
        bias: info.dlpi_addr,
        segments: headers
            .iter()
            .filter(|h| h.p_type == libc::PT_LOAD)
            .map(range)
            .collect(),
        eh_frame_hdr,
        symbols: None,
    });
    0
}

/// The functions that a file names, by address; none when it cannot be read.
fn read_symbols(path: &str) -> Vec<Symbol> {
    let Ok(bytes) = std::fs::read(path) else {
        return Vec::new();
    };
    let Ok(file) = object::File::parse(&*bytes) else {
        return Vec::new();
    };
    let mut symbols: Vec<Symbol> = file
        .symbols()
        .chain(file.dynamic_symbols())
        .filter(|s| s.kind() == SymbolKind::Text && s.is_definition())
        .filter_map(|s| {
            Some(Symbol {
                start: s.address(),
                size: s.size(),
                name: format!("{:#}", rustc_demangle::demangle(s.name().ok()?)),
            })
        })
        .collect();
    symbols.sort_by(|a, b| (a.start, a.size, &a.name).cmp(&(b.start, b.size, &b.name)));
    symbols
}
