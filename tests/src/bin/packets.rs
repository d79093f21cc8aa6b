//! scratch
use foobar_common::rules::compile::compile;
use foobar_user::datapath::generation::{Generation, Parts};
fn main() {
    let rules = compile(&[]).unwrap();
    let mut g = Generation::load(&Parts { state: None, rules: &rules, counters: &[], number: 1, balances: true })
        .unwrap_or_else(|e| {
            println!("{e:#}");
            std::process::exit(1)
        });
    println!("{:?}", g.xdp("foobar").unwrap().info().unwrap().verified_instruction_count());
}
