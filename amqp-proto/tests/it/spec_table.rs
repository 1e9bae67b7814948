//! The table of methods and properties against the official XML (AMQP Working Group and VMware;
//! its notice stands in the file), and the methods that RabbitMQ adds beyond that XML.

use std::collections::BTreeMap;

use amqp_proto::method::{Domain, TABLE};
use roxmltree::{Document, Node};

const XML: &str = include_str!("../data/amqp0-9-1.extended.xml");

/// RabbitMQ's methods that the XML does not know.
const BEYOND_XML: [&str; 6] = [
    "access.request",
    "access.request-ok",
    "connection.blocked",
    "connection.unblocked",
    "connection.update-secret",
    "connection.update-secret-ok",
];

/// RabbitMQ answers `basic.recover`, which the XML leaves unsaid.
const REPLIES_BEYOND_XML: [(&str, &str); 1] = [("basic.recover", "recover-ok")];

#[derive(Debug, PartialEq)]
struct Row {
    id: (u16, u16),
    content: bool,
    replies: Vec<String>,
    fields: Vec<(String, Domain, bool)>,
}

#[test]
fn pk_101_every_method_is_as_in_the_xml() {
    let document = Document::parse(XML).unwrap();
    let mut expected = xml_rows(&document);
    for (method, reply) in REPLIES_BEYOND_XML {
        expected.get_mut(method).unwrap().replies.push(reply.into());
    }
    let mut actual = table_rows();
    for name in BEYOND_XML {
        assert!(actual.remove(name).is_some(), "{name} is missing");
    }
    for (name, row) in &expected {
        assert_eq!(actual.get(name), Some(row), "{name}");
    }
    assert_eq!(actual.len(), expected.len());
    assert_eq!(TABLE.len(), 66);
}

#[test]
fn every_property_is_as_in_the_xml() {
    let document = Document::parse(XML).unwrap();
    let basic = document.descendants().find(|node| node.attribute("name") == Some("basic"));
    let fields = basic.unwrap().children().filter(|node| node.has_tag_name("field"));
    let expected: Vec<(&str, u8, &str)> = fields
        .enumerate()
        .map(|(position, field)| {
            let bit = 15 - u8::try_from(position).unwrap();
            (field.attribute("name").unwrap(), bit, field.attribute("domain").unwrap())
        })
        .collect();
    assert_eq!(amqp_proto::properties::TABLE, expected);
}

#[test]
fn every_reply_code_is_as_in_the_xml() {
    let document = Document::parse(XML).unwrap();
    let errors = document
        .descendants()
        .filter(|node| node.has_tag_name("constant") && node.attribute("class").is_some());
    for error in errors {
        let code: u16 = error.attribute("value").unwrap().parse().unwrap();
        let code = amqp_proto::ReplyCode::new(code);
        let name = error.attribute("name").unwrap().replace('-', "_").to_uppercase();
        assert_eq!(code.name(), Some(name.as_str()));
        assert_eq!(code.is_hard(), error.attribute("class") == Some("hard-error"), "{code}");
        assert_eq!(code.is_soft(), error.attribute("class") == Some("soft-error"), "{code}");
    }
}

fn table_rows() -> BTreeMap<String, Row> {
    TABLE
        .iter()
        .map(|spec| {
            let fields = spec.fields.iter().map(|field| {
                let name = field.name.trim_start_matches("r#").replace('_', "-");
                (name, field.domain, field.reserved)
            });
            let row = Row {
                id: (spec.id.class, spec.id.method),
                content: spec.content,
                replies: spec.replies.iter().map(|name| kebab(name)).collect(),
                fields: fields.collect(),
            };
            (format!("{}.{}", spec.class, kebab(spec.name)), row)
        })
        .collect()
}

fn xml_rows(document: &Document<'_>) -> BTreeMap<String, Row> {
    let domains: BTreeMap<&str, &str> = document
        .descendants()
        .filter(|node| node.has_tag_name("domain"))
        .map(|node| (node.attribute("name").unwrap(), node.attribute("type").unwrap()))
        .collect();
    let mut rows = BTreeMap::new();
    for class in document.descendants().filter(|node| node.has_tag_name("class")) {
        for method in class.children().filter(|node| node.has_tag_name("method")) {
            let names = |tag| {
                let nodes = method.children().filter(move |node| node.has_tag_name(tag));
                nodes.map(|node| node.attribute("name").unwrap().to_owned())
            };
            let fields = method.children().filter(|node| node.has_tag_name("field"));
            let fields = fields.map(|field| {
                let name = field.attribute("name").unwrap().to_owned();
                let elementary = field
                    .attribute("type")
                    .unwrap_or_else(|| domains[field.attribute("domain").unwrap()]);
                (name, domain(elementary), field.attribute("reserved").is_some())
            });
            let row = Row {
                id: (index(class), index(method)),
                content: method.attribute("content").is_some(),
                replies: names("response").collect(),
                fields: fields.collect(),
            };
            let class_name = class.attribute("name").unwrap();
            rows.insert(format!("{class_name}.{}", method.attribute("name").unwrap()), row);
        }
    }
    rows
}

fn index(node: Node<'_, '_>) -> u16 {
    node.attribute("index").unwrap().parse().unwrap()
}

fn domain(elementary: &str) -> Domain {
    match elementary {
        "bit" => Domain::Bit,
        "octet" => Domain::Octet,
        "short" => Domain::Short,
        "long" => Domain::Long,
        "longlong" => Domain::LongLong,
        "shortstr" => Domain::ShortStr,
        "longstr" => Domain::LongStr,
        "table" => Domain::Table,
        unknown => panic!("the XML has a type {unknown}"),
    }
}

fn kebab(camel: &str) -> String {
    let mut name = String::new();
    for (position, letter) in camel.chars().enumerate() {
        if letter.is_uppercase() && position > 0 {
            name.push('-');
        }
        name.extend(letter.to_lowercase());
    }
    name
}
