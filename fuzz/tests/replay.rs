//! Every input of the corpora, on the stable toolchain.

use std::fs;
use std::path::Path;

#[test]
fn every_corpus_is_replayed() {
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for (name, target) in amqp_fuzz::TARGETS {
        let inputs = fs::read_dir(corpora.join(name)).expect("a corpus for every target");
        let mut replayed = 0;
        for input in inputs {
            target(&fs::read(input.unwrap().path()).unwrap());
            replayed += 1;
        }
        println!("{name}: {replayed} inputs");
        assert!(replayed > 10, "{name} has hardly a corpus");
    }
}
