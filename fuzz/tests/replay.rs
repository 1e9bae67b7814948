//! Every input of the corpora, on the stable toolchain.

use std::path::Path;

use amqp_fuzz::corpus;

#[test]
fn every_corpus_is_replayed() {
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for (name, target) in amqp_fuzz::TARGETS {
        let inputs = corpus::read(&corpora.join(format!("{name}.hex"))).unwrap();
        for input in &inputs {
            target(input);
        }
        println!("{name}: {} inputs", inputs.len());
        assert!(inputs.len() > 10, "{name} has hardly a corpus");
    }
}

#[test]
fn a_corpus_is_unpacked_and_packed_again() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("corpus");
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    let [first, second] = ["first.hex", "second.hex"].map(|name| folder.join(name));
    std::fs::write(&first, "00\nff\n0a1b\n").unwrap();
    assert_eq!(corpus::read(&first).unwrap(), [&[0][..], &[255], &[10, 27]]);
    corpus::unpack(&first, &folder.join("inputs")).unwrap();
    std::fs::write(folder.join("inputs/found"), b"\xff").unwrap();
    std::fs::write(folder.join("inputs/empty"), b"").unwrap();
    corpus::pack(&folder.join("inputs"), &second).unwrap();
    assert_eq!(std::fs::read(&first).unwrap(), std::fs::read(&second).unwrap());
    for wrong in ["0", "0g", "+1"] {
        std::fs::write(&first, wrong).unwrap();
        assert!(corpus::read(&first).unwrap_err().to_string().contains(wrong));
    }
}
