//! Users, their passwords and permissions (<https://www.rabbitmq.com/docs/access-control>).
//!
//! A connection keeps the permissions that its user has when it opens. A name is permitted if the pattern matches any part
//! of it; an empty pattern permits only the empty name. The default exchange is called `amq.default`.

use std::collections::BTreeMap;
use std::sync::Arc;

use amqp_proto::ReplyCode;
use regex_lite::Regex;

use super::broker::Broker;
use super::channel::Channel;
use super::refusal::Refusal;

/// Why permissions could not be set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PermissionsError {
    /// The user does not exist.
    #[error("no user {user:?}: add it first")]
    NoUser {
        /// The name of the user.
        user: String,
    },
    /// A pattern is not a regular expression.
    #[error("{pattern:?} is not a regular expression: {reason}")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// The users of a broker.
#[derive(Debug)]
pub(super) struct Users(BTreeMap<String, User>);

#[derive(Debug)]
struct User {
    password: String,
    access: Access,
}

/// What a user may do in the virtual host.
#[derive(Clone, Debug, Default)]
pub(super) enum Access {
    /// Nothing, not even open a connection.
    #[default]
    None,
    Some(Arc<Permissions>),
    All,
}

/// The names for which a user has each permission.
#[derive(Debug)]
pub(super) struct Permissions {
    configure: Regex,
    write: Regex,
    read: Regex,
}

/// What an operation needs of a queue or an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Permission {
    Configure,
    Write,
    Read,
}

impl Default for Users {
    /// Returns the user `guest` with the password `guest` and every permission.
    fn default() -> Self {
        let guest = User { password: "guest".to_owned(), access: Access::All };
        Self(BTreeMap::from([("guest".to_owned(), guest)]))
    }
}

impl Users {
    /// Returns whether a user has this password.
    pub(super) fn has(&self, user: &str, password: &[u8]) -> bool {
        self.0.get(user).is_some_and(|found| found.password.as_bytes() == password)
    }

    /// Returns what a user may do.
    pub(super) fn access(&self, user: &str) -> Access {
        self.0.get(user).map(|found| found.access.clone()).unwrap_or_default()
    }
}

impl Broker {
    /// Adds a user without permissions, or changes the password of one. There is one user from the start, `guest`, with
    /// the password `guest` and all permissions.
    pub fn add_user(&mut self, user: &str, password: &str) {
        let found = self
            .users
            .0
            .entry(user.to_owned())
            .or_insert_with(|| User { password: String::new(), access: Access::None });
        password.clone_into(&mut found.password);
    }

    /// Sets the permissions of a user in the virtual host `/`: regular expressions of the names of queues and exchanges
    /// that it may configure, write to and read from. They hold for connections that are opened from then on.
    ///
    /// # Errors
    /// [`PermissionsError`]. Nothing is changed then.
    pub fn set_permissions(
        &mut self,
        user: &str,
        configure: &str,
        write: &str,
        read: &str,
    ) -> Result<(), PermissionsError> {
        let no_user = || PermissionsError::NoUser { user: user.to_owned() };
        let found = self.users.0.get_mut(user).ok_or_else(no_user)?;
        found.access = match (configure, write, read) {
            (".*", ".*", ".*") => Access::All,
            _ => Access::Some(Arc::new(Permissions {
                configure: pattern(configure)?,
                write: pattern(write)?,
                read: pattern(read)?,
            })),
        };
        Ok(())
    }
}

fn pattern(pattern: &str) -> Result<Regex, PermissionsError> {
    let compiled = Regex::new(if pattern.is_empty() { "^$" } else { pattern });
    compiled.map_err(|error| PermissionsError::Pattern {
        pattern: pattern.to_owned(),
        reason: error.to_string(),
    })
}

impl Access {
    fn has(&self, permission: Permission, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::None => false,
            Self::Some(permissions) => match permission {
                Permission::Configure => permissions.configure.is_match(name),
                Permission::Write => permissions.write.is_match(name),
                Permission::Read => permissions.read.is_match(name),
            },
        }
    }
}

impl Channel<'_> {
    /// Returns an error if the user has no permission for this queue.
    pub(super) fn check_queue(
        &mut self,
        permission: Permission,
        name: &str,
    ) -> Result<(), Refusal> {
        self.check_access(permission, "queue", name)
    }

    /// Returns an error if the user has no permission for this exchange.
    pub(super) fn check_exchange(
        &mut self,
        permission: Permission,
        name: &str,
    ) -> Result<(), Refusal> {
        self.check_access(
            permission,
            "exchange",
            if name.is_empty() { "amq.default" } else { name },
        )
    }

    fn check_access(
        &mut self,
        permission: Permission,
        kind: &str,
        name: &str,
    ) -> Result<(), Refusal> {
        let connection = self.connection();
        if connection.access.has(permission, name) {
            return Ok(());
        }
        let user = &connection.user;
        let text = format!("access to {kind} '{name}' in vhost '/' refused for user '{user}'");
        Err(Refusal::channel(ReplyCode::ACCESS_REFUSED, text))
    }
}
