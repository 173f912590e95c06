//! Batches through the core, through a plain lookup in a prepared table, and through memflow.
//!
//! Each iteration uses the next batch of a long list, so that no batch is cached from the last
//! iteration.

use std::hint::black_box;
use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{criterion_group, criterion_main, BenchmarkGroup, Criterion, Throughput};
use xenkdump::addr::{MachineAddr, Mfn};
use xenkdump::status::Status;
use xenkdump_benches::{Guest, Order};

const LIST: usize = 1 << 20;
/// The batch sizes: all for the 64 GiB guest, only the largest for the others.
const BATCHES: [usize; 5] = [1, 16, 256, 4096, 65_536];
const GUESTS: [(&str, &[usize]); 3] = [("4g", &[65_536]), ("64g", &BATCHES), ("1t", &[65_536])];

fn batches(guest: &str) -> &'static [usize] {
    GUESTS.iter().find(|(name, _)| *name == guest).unwrap().1
}

/// Measures `work` on batch after batch of `list`.
fn measure<T>(
    group: &mut BenchmarkGroup<'_, WallTime>,
    who: &str,
    list: &[T],
    batch: usize,
    mut work: impl FnMut(&[T]),
) {
    let mut batches = list.chunks_exact(batch).cycle();
    // Warm up with one pass over the list.
    for part in list.chunks_exact(batch).take(LIST / batch.max(64)) {
        work(part);
    }
    group.throughput(Throughput::Elements(batch as u64));
    group.bench_function(format!("{who}/{batch}"), |bench| {
        bench.iter(|| work(batches.next().unwrap()));
    });
}

fn resolve(c: &mut Criterion) {
    for (name, _) in GUESTS {
        let guest = Guest::open(name);
        let table = guest.table();
        for order in Order::ALL {
            let pfns = guest.pfns(order, LIST);
            let mut group = c.benchmark_group(format!("resolve/{name}/{}", order.name()));
            for &batch in batches(name) {
                let mut out = vec![Mfn(0); batch];
                let mut status = vec![Status::Ok; batch];
                measure(&mut group, "xenkdump", &pfns, batch, |pfns| {
                    guest.resolve(pfns, &mut out, &mut status);
                    black_box(&out);
                });
                let mut plain = vec![0; batch];
                measure(&mut group, "table", &pfns, batch, |pfns| {
                    for (out, pfn) in plain.iter_mut().zip(pfns) {
                        *out = table[pfn.0 as usize];
                    }
                    black_box(&plain);
                });
            }
        }
    }
}

fn translate(c: &mut Criterion) {
    for (name, _) in GUESTS {
        let guest = Guest::open(name);
        for mapped in guest.spaces() {
            let mut memflow = guest.memflow(&mapped);
            for order in Order::ALL {
                let addrs = guest.addrs(&mapped, order, LIST);
                let title = format!("translate-{}/{name}/{}", mapped.pages, order.name());
                let mut group = c.benchmark_group(title);
                for &batch in batches(name) {
                    let mut out = vec![MachineAddr(0); batch];
                    let mut status = vec![Status::Ok; batch];
                    measure(&mut group, "xenkdump", &addrs, batch, |addrs| {
                        mapped.translate(addrs, &mut out, &mut status);
                        black_box(&out);
                    });
                    let mut theirs = vec![0; batch];
                    measure(&mut group, "memflow", &addrs, batch, |addrs| {
                        memflow.translate(addrs, &mut theirs);
                        black_box(&theirs);
                    });
                }
            }
        }
    }
}

criterion_group! {
    name = engine;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_millis(400))
        .without_plots();
    targets = resolve, translate
}
criterion_main!(engine);
