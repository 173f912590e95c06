//! Runs one path of the core once, to count instructions under callgrind.
//!
//! `counts PATH ORDER` processes [`ELEMENTS`] in [`counted`], where callgrind collects.

use std::hint::black_box;

use xenkdump::addr::{Address, MachineAddr, Mfn, VirtAddr};
use xenkdump::file::MappedFile;
use xenkdump::memory::Memory;
use xenkdump::status::Status;
use xenkdump_benches::{Guest, Order};

const ELEMENTS: usize = 65_536;

/// The function that callgrind collects, by its name.
#[inline(never)]
#[no_mangle]
fn counted(work: &mut dyn FnMut()) {
    work();
}

fn main() {
    let mut args = std::env::args().skip(1);
    let (Some(path), Some(order)) = (args.next(), args.next()) else {
        eprintln!("counts PATH ORDER");
        std::process::exit(2);
    };
    let order = Order::ALL
        .into_iter()
        .find(|known| known.name() == order)
        .expect("an order");
    let guest = Guest::open("4g");
    let mut status = vec![Status::Ok; ELEMENTS];
    let pages = path.strip_prefix("translate-").unwrap_or("4k");
    let spaces = guest.spaces();
    let mapped = spaces.iter().find(|mapped| mapped.pages == pages);
    let mapped = mapped.expect("a path");
    let addrs = guest.addrs(mapped, order, ELEMENTS);
    let mut machine = vec![MachineAddr(0); ELEMENTS];
    let mut run: Box<dyn FnMut()> = match path.as_str() {
        "resolve" => {
            let pfns = guest.pfns(order, ELEMENTS);
            let mut mfns = vec![Mfn(0); ELEMENTS];
            let guest = &guest;
            Box::new(move || {
                guest.resolve(&pfns, &mut mfns, &mut status);
                black_box((&mfns, &status));
            })
        }
        "walk" => Box::new(move || {
            for addr in &addrs {
                let _ = black_box(mapped.space.translate(*addr));
            }
        }),
        "read" => {
            let found = addrs.iter().map(|addr| mapped.space.translate(*addr));
            let machine: Vec<_> = found
                .map(|addr| MachineAddr(addr.unwrap().0 & !7))
                .collect();
            let dump = &guest.dump;
            Box::new(move || {
                for addr in &machine {
                    let _ = black_box(dump.read_u64(*addr));
                }
            })
        }
        "guard" => {
            let file = MappedFile::open(&guest.path).unwrap();
            let offsets: Vec<_> = addrs
                .iter()
                .map(|addr: &VirtAddr| addr.raw() % 65_536)
                .collect();
            Box::new(move || {
                for offset in &offsets {
                    let _ = black_box(file.array::<8>(*offset));
                }
            })
        }
        _ => Box::new(move || {
            mapped.translate(&addrs, &mut machine, &mut status);
            black_box((&machine, &status));
        }),
    };
    // This fills tables that are filled on demand.
    for _ in 0..4 {
        run();
    }
    counted(&mut *run);
}
