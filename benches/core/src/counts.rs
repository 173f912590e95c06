//! One path of the core, so often: for counting instructions under callgrind.
//!
//! `counts PATH ORDER ELEMENTS`; the difference of two runs is that of their elements.

use std::hint::black_box;

use xenkdump::addr::{MachineAddr, Mfn};
use xenkdump::paging::Translator;
use xenkdump::status::Status;
use xenkdump_benches::{Guest, Order, DIRECT, HUGE};

const BATCH: usize = 65_536;

fn main() {
    let mut args = std::env::args().skip(1);
    let (Some(path), Some(order), Some(elements)) = (args.next(), args.next(), args.next()) else {
        eprintln!("counts PATH ORDER ELEMENTS");
        std::process::exit(2);
    };
    let order = Order::ALL
        .into_iter()
        .find(|known| known.name() == order)
        .expect("an order");
    let elements: usize = elements.parse().expect("a number");
    let guest = Guest::open("4g");
    let mut status = vec![Status::Ok; BATCH];
    let pfns = guest.pfns(order, BATCH);
    let base = if path == "translate-2m" { HUGE } else { DIRECT };
    let addrs = guest.addrs(base, order, BATCH);
    let mut mfns = vec![Mfn(0); BATCH];
    let mut machine = vec![MachineAddr(0); BATCH];
    // Made, and warm, before what is counted; both runs do as much.
    let mut translator = Translator::new(&guest.space, BATCH);
    for _ in 0..2 {
        guest.p2m.resolve_many(&pfns, &mut mfns, &mut status);
        translator.translate(&addrs, &mut machine, &mut status);
    }
    for _ in 0..elements / BATCH {
        match path.as_str() {
            "resolve" => guest.p2m.resolve_many(&pfns, &mut mfns, &mut status),
            "translate-4k" | "translate-2m" => {
                translator.translate(&addrs, &mut machine, &mut status);
            }
            "walk" => {
                for (addr, out) in addrs.iter().zip(&mut machine) {
                    *out = guest.space.translate(*addr).unwrap_or_default();
                }
            }
            other => panic!("no path {other}"),
        }
        black_box((&mfns, &machine, &status));
    }
}
