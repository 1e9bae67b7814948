//! A ledger over kills of connections, processes and nodes.

use std::process::Command;

/// Six losses of connections, four kills of the application's process, and two of the node. `cargo xtask soak --app` has more.
/// The program fails if a message is lost, was not published, or has a duplicate with another id.
#[test]
fn u_8_nothing_is_lost_while_connections_processes_and_nodes_are_killed() {
    let mut soak = Command::new(env!("CARGO_BIN_EXE_app_soak"));
    let output = soak.args(["--faults", "12"]).output().unwrap();
    let [text, errors] =
        [output.stdout, output.stderr].map(|it| String::from_utf8_lossy(&it).into_owned());
    assert!(output.status.success(), "{text}\n{errors}");
    for kind in ["connection", "process", "node"] {
        let went_on = text.lines().filter(|line| line.starts_with(kind)).count();
        assert!(went_on > 0, "no {kind} was killed:\n{text}");
    }
    assert!(text.contains(" + 0 lost"), "{text}");
}
