//! The diagrams in the documentation are those that the tables print.

const ARCHITECTURE: &str = include_str!("../../../ARCHITECTURE.md");

#[test]
fn the_documentation_shows_the_tables() {
    for (name, diagram) in amqp_core::state_diagrams() {
        let block = format!("```mermaid\n{diagram}```");
        assert!(
            ARCHITECTURE.contains(&block),
            "ARCHITECTURE.md lacks the diagram {name}:\n{block}"
        );
    }
}
