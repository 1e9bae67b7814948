//! A ledger over kills of connections, processes and nodes.

use std::process::Command;

/// Kills the process 50 times: at random moments, and at each step of a transaction. The program fails if a message is lost, has a
/// part of its replies, or was committed twice.
#[test]
fn gr_5_u_1_u_8_a_killed_process_parts_no_replies_from_their_requests() {
    let text = soak(&["--transactional", "--faults", "50"]);
    let killed = |line: &&str| line.contains("process killed");
    assert_eq!(text.lines().take_while(|it| !it.is_empty()).filter(killed).count(), 50, "{text}");
}

/// Six losses of connections, four kills of the application's process, and two of the node. `cargo xtask soak --app` has more.
/// The program fails if a message is lost, was not published, or has a duplicate with another id.
#[test]
fn u_8_nothing_is_lost_while_connections_processes_and_nodes_are_killed() {
    let text = soak(&["--faults", "12"]);
    for kind in ["connection", "process", "node"] {
        let went_on = text.lines().filter(|line| line.starts_with(kind)).count();
        assert!(went_on > 0, "no {kind} was killed:\n{text}");
    }
}

/// Runs the program, and returns what it has printed.
fn soak(arguments: &[&str]) -> String {
    let mut soak = Command::new(env!("CARGO_BIN_EXE_app_soak"));
    let output = soak.args(arguments).output().unwrap();
    let [text, errors] =
        [output.stdout, output.stderr].map(|it| String::from_utf8_lossy(&it).into_owned());
    assert!(output.status.success(), "{text}\n{errors}");
    assert!(text.contains(" + 0 lost"), "{text}");
    text
}
