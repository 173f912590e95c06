//! Symbols of a kernel or hypervisor and of its modules, by name and by address.
//!
//! - `table`: the symbols of one file or module, by address and by name.
//! - `buckets`: symbols by address, sorted where they are searched.
//! - `order`: sorts symbols by address.
//! - `elf`, `kallsyms`, `map`: the sources: an ELF symbol table, a kernel's own table, a `System.map`.
//!
//! Tables are built on first use. A [`Symbols`] is cheap to clone.

mod buckets;
mod elf;
mod kallsyms;
mod labels;
mod map;
mod order;
mod table;

use std::iter;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use crate::addr::{VirtAddr, Word};
use crate::alloc;
use crate::image::Image;
use crate::limits::MAX_SAME_NAMES;
use crate::names::{Key, Names};
use crate::ranges::Ranges;
use crate::Result;
pub use table::{Binding, Kind};
use table::{Found, Table};

/// One symbol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Symbol<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its address, with the slide applied; for a per-cpu symbol of a kernel whose per-cpu section
    /// starts at 0, the offset from the CPU's base.
    pub address: VirtAddr,
    /// Its size in bytes; 0 if unknown.
    pub size: u64,
    /// What it names, as far as its source says.
    pub kind: Kind,
    /// Its binding.
    pub binding: Binding,
    /// The letter that nm shows for it: its section's, upper case if it is global; `?` if unknown.
    pub letter: char,
    /// The module that defines it; `None` for the kernel or hypervisor itself.
    pub module: Option<&'a str>,
}

/// A position among all symbols; see [`Symbols::next`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Cursor {
    /// 0 for the image, else the number of the module from 1 up.
    table: usize,
    entry: usize,
}

/// The symbols of a kernel or hypervisor, and of the modules added to it.
#[derive(Clone, Debug)]
pub struct Symbols {
    image: Arc<Table>,
    modules: Arc<Modules>,
    slide: i64,
    /// How far the addresses in the table are above link-time addresses.
    moved: i64,
}

/// Modules in the order in which they were added, and by address.
#[derive(Clone, Debug, Default)]
struct Modules {
    all: Vec<Arc<Module>>,
    by_address: Ranges<Arc<Module>>,
    by_name: OnceLock<ByName>,
}

/// The symbols of all modules by name, numbered consecutively.
#[derive(Clone, Debug)]
struct ByName {
    /// The first number of each module.
    firsts: Vec<usize>,
    names: Names,
}

#[derive(Debug)]
struct Module {
    name: Box<str>,
    table: Table,
}

impl Modules {
    fn add(&mut self, range: Range<VirtAddr>, module: Module) {
        // All modules may be added again: by another thread, or after an interrupt.
        let known = self.by_address.get(&range);
        if known.is_some_and(|known| known.name == module.name) {
            return;
        }
        let module = Arc::new(module);
        alloc::push(&mut self.all, Arc::clone(&module));
        self.by_address.add(range, module);
        self.by_name = OnceLock::new();
    }

    fn by_name(&self) -> &ByName {
        self.by_name.get_or_init(|| self.names())
    }

    /// The symbols with this name, in the order of the modules.
    fn named<'a, 'n>(
        &'a self,
        name: &'n str,
        key: Key,
    ) -> impl Iterator<Item = Symbol<'a>> + use<'a, 'n> {
        let ByName { firsts, names } = self.by_name();
        names.with_key(key).filter_map(move |i| {
            let at = firsts.partition_point(|first| *first <= i).checked_sub(1)?;
            let (first, module) = (firsts.get(at)?, self.all.get(at)?);
            let Module {
                name: module_name,
                table,
            } = &**module;
            Some(symbol(
                table.get(i - first, name)?,
                Some(module_name),
                table,
                0,
            ))
        })
    }

    fn names(&self) -> ByName {
        let mut firsts = alloc::with_capacity(self.all.len());
        let mut total = 0_usize;
        for module in &self.all {
            firsts.push(total);
            total += module.table.len();
        }
        let modules = self.all.iter().zip(&firsts).rev();
        let named = modules.flat_map(|(module, first)| {
            let symbols = module.table.worst_first();
            symbols.filter_map(move |(i, key)| Some((u32::try_from(first + i as usize).ok()?, key)))
        });
        let names = Names::with_keys(total, named);
        ByName { firsts, names }
    }
}

impl Symbols {
    /// The symbols of an image, at their link-time addresses.
    pub fn of_image(image: &Image) -> Result<Self> {
        let table = match image {
            Image::File(file) if file.symbol_table().is_some() => elf::of_image(file)?,
            Image::File(file) => kallsyms::of_file(file)?,
            Image::Memory(memory) => kallsyms::of_memory(memory),
        };
        Ok(Self::new(table))
    }

    /// The symbols of a `System.map` or `xen-syms.map`: lines of address, type letter and name. Sizes
    /// are unknown.
    pub fn from_map(path: &Path) -> Result<Self> {
        map::open(path).map(Self::new)
    }

    fn new(table: Table) -> Self {
        Self {
            image: Arc::new(table),
            modules: Arc::default(),
            slide: 0,
            moved: 0,
        }
    }

    /// The same symbols, without modules, for a kernel loaded `slide` bytes above its link-time
    /// address (KASLR).
    pub fn with_slide(&self, slide: i64) -> Self {
        Self {
            image: Arc::clone(&self.image),
            modules: Arc::default(),
            slide,
            moved: self.moved,
        }
    }

    /// The same symbols, without modules, where link-time addresses are `moved` bytes below those that
    /// were taken for them. The table is shared: it is built once.
    pub fn unmoved(&self, moved: i64) -> Self {
        Self {
            image: Arc::clone(&self.image),
            modules: Arc::default(),
            slide: 0,
            moved: self.moved.wrapping_add(moved),
        }
    }

    /// What to add to the addresses in the table.
    fn shift(&self) -> i64 {
        self.slide.wrapping_sub(self.moved)
    }

    /// The offset of the kernel from its link-time address. It does not apply to modules.
    pub fn slide(&self) -> i64 {
        self.slide
    }

    /// The width of an address.
    pub fn word(&self) -> Word {
        self.image.word()
    }

    /// Adds the symbols between `start` and `end` of a module's symbol table: an array of `Elf32_Sym`
    /// or `Elf64_Sym` with absolute values, as in `struct module.kallsyms`. Add a module with several
    /// ranges (text, data, ...) once for each range.
    ///
    /// Ignored if a module of this name has been added there.
    pub fn add_module(
        &mut self,
        name: &str,
        start: VirtAddr,
        end: VirtAddr,
        symtab: Vec<u8>,
        strtab: Vec<u8>,
    ) {
        let module = Module {
            name: name.into(),
            table: elf::of_module(start..end, symtab, strtab, self.word()),
        };
        Arc::make_mut(&mut self.modules).add(start..end, module);
    }

    /// Whether the table for lookups by address is built.
    pub fn is_built(&self) -> bool {
        self.image.is_built()
    }

    /// Builds the table for lookups by address, which may take a while. The first lookup does so too.
    pub fn build(&self) {
        self.image.build();
    }

    /// Whether all symbols are sorted, which the first step of [`Symbols::next`] does.
    pub fn is_sorted(&self) -> bool {
        self.image.is_sorted()
    }

    /// Whether the tables for lookups by name are built as well.
    pub fn names_are_built(&self) -> bool {
        self.image.is_named() && self.modules.by_name.get().is_some()
    }

    /// Builds all tables, including the index of the modules' symbol names.
    pub fn build_names(&self) {
        self.image.build_names();
        self.modules.by_name();
    }

    /// The number of symbols.
    pub fn len(&self) -> usize {
        let modules = self.modules.all.iter().map(|module| module.table.len());
        self.image.len() + modules.sum::<usize>()
    }

    /// Whether there are no symbols.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The symbol at `cursor`, which advances: those of the image by address, then those of each module
    /// in the order in which they were added. `None` at the end.
    pub fn next(&self, cursor: &mut Cursor) -> Option<Symbol<'_>> {
        while cursor.table <= self.modules.all.len() {
            let found = match cursor.table.checked_sub(1) {
                None => {
                    let found = self.image.number(cursor.entry);
                    found.map(|found| symbol(found, None, &self.image, self.shift()))
                }
                Some(module) => self.modules.all.get(module).and_then(|module| {
                    let found = module.table.number(cursor.entry)?;
                    Some(symbol(found, Some(&module.name), &module.table, 0))
                }),
            };
            match found {
                Some(_) => {
                    cursor.entry += 1;
                    return found;
                }
                None => {
                    *cursor = Cursor {
                        table: cursor.table + 1,
                        entry: 0,
                    }
                }
            }
        }
        None
    }

    /// The symbol with this name. The kernel's own symbols precede those of modules, then global
    /// symbols precede others, then lower addresses precede higher ones.
    pub fn get(&self, name: &str) -> Option<Symbol<'_>> {
        self.named(name).next()
    }

    /// All symbols with this name, by address: static functions may have the same name. At most 4096,
    /// the first in the order of [`Symbols::get`].
    pub fn all(&self, name: &str) -> Vec<Symbol<'_>> {
        let mut all = alloc::collect(self.named(name).take(MAX_SAME_NAMES).enumerate());
        all.sort_unstable_by_key(|(i, symbol)| (symbol.address, *i));
        alloc::collect(all.into_iter().map(|(_, symbol)| symbol))
    }

    /// The innermost symbol whose size covers `address`; if there is none, [`Symbols::nearest`].
    pub fn lookup(&self, address: VirtAddr) -> Option<Symbol<'_>> {
        self.at(address, |table, link| {
            table.covering(link).or_else(|| table.nearest(link))
        })
    }

    /// The nearest symbol at or below `address`, regardless of its size, as in crash: e.g.
    /// `entry_SYSCALL_64_after_hwframe` within `entry_SYSCALL_64`. `None` outside the image and its
    /// modules.
    pub fn nearest(&self, address: VirtAddr) -> Option<Symbol<'_>> {
        self.at(address, Table::nearest)
    }

    fn at<'a>(
        &'a self,
        address: VirtAddr,
        pick: impl Fn(&'a Table, VirtAddr) -> Option<Found<'a>>,
    ) -> Option<Symbol<'a>> {
        if address.0 > self.word().max() {
            return None;
        }
        let link = apply_slide(address, self.shift().wrapping_neg(), self.word());
        if let Some(found) = pick(&self.image, link) {
            return Some(symbol(found, None, &self.image, self.shift()));
        }
        let Module { name, table } = &**self.modules.by_address.find(address)?;
        Some(symbol(pick(table, address)?, Some(name), table, 0))
    }

    /// The symbols with this name in the order of [`Symbols::get`]: the image's, then the modules'.
    fn named<'a, 'n>(&'a self, name: &'n str) -> impl Iterator<Item = Symbol<'a>> + use<'a, 'n> {
        let key = Key::of_text(name.as_bytes(), 0);
        let image = self.image.named(name, key);
        image
            .map(|found| symbol(found, None, &self.image, self.shift()))
            .chain(iter::once_with(move || self.modules.named(name, key)).flatten())
    }
}

fn symbol<'a>(found: Found<'a>, module: Option<&'a str>, table: &Table, slide: i64) -> Symbol<'a> {
    let slide = if found.located { slide } else { 0 };
    Symbol {
        name: found.name,
        address: apply_slide(found.address, slide, table.word()),
        size: found.size,
        kind: found.kind,
        binding: found.binding,
        letter: char::from(found.letter),
        module,
    }
}

/// Adds the slide. Addresses wrap at the word size.
fn apply_slide(address: VirtAddr, slide: i64, word: Word) -> VirtAddr {
    VirtAddr(address.0.wrapping_add_signed(slide) & word.max())
}

#[cfg(test)]
mod tests;
