//! The phases of a session, as one transition table.

use crate::machine::{self, Transition};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Resolving,
    FetchingCredentials,
    Dialling,
    /// A transport is connected, and is being encrypted.
    Securing,
    /// A transport is connected, and the connection is not open yet.
    Handshake,
    /// The connection is open again. Exchanges, queues and bindings are being declared.
    Replaying,
    /// The connection is open. The application sets it up.
    SettingUp,
    /// The connection is open again. Channels and consumers are being restored.
    Attaching,
    /// The connection is open or closing.
    Open,
    /// The session waits for its next attempt, without a transport. The last output of the one before may still be
    /// written.
    Waiting,
    /// The session has ended. Queued output is still to be written.
    Ended,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PhaseInput {
    Resolved,
    /// Credentials are to be fetched before the transport is dialled.
    Fetch,
    Fetched,
    /// The transport is connected, and is to be encrypted.
    Dialled,
    Connected,
    /// The attempt failed, and there is another address.
    NextAddress,
    /// The attempt failed, and there is another host.
    NextHost,
    /// The last host of a cycle failed, and there is another cycle.
    NextCycle,
    /// The delay before the next attempt has passed.
    Due,
    /// The first connection is open, and set up.
    Opened,
    /// The application is to set the connection up.
    SetUp,
    /// The handshake of another connection is done.
    Reopened,
    /// The topology is declared again, and the connection set up.
    Replayed,
    /// The channels are restored.
    Attached,
    /// The transport was lost, and the session recovers.
    Lost,
    End,
}

const TRANSITIONS: &[Transition<Phase, PhaseInput>] = &[
    (Phase::Resolving, PhaseInput::Resolved, Phase::Dialling),
    (Phase::Resolving, PhaseInput::NextHost, Phase::Resolving),
    (Phase::Resolving, PhaseInput::NextCycle, Phase::Waiting),
    (Phase::Resolving, PhaseInput::End, Phase::Ended),
    (Phase::FetchingCredentials, PhaseInput::Fetched, Phase::Dialling),
    (Phase::FetchingCredentials, PhaseInput::NextAddress, Phase::Dialling),
    (Phase::FetchingCredentials, PhaseInput::NextHost, Phase::Resolving),
    (Phase::FetchingCredentials, PhaseInput::NextCycle, Phase::Waiting),
    (Phase::FetchingCredentials, PhaseInput::End, Phase::Ended),
    (Phase::Dialling, PhaseInput::Fetch, Phase::FetchingCredentials),
    (Phase::Dialling, PhaseInput::Connected, Phase::Handshake),
    (Phase::Dialling, PhaseInput::Dialled, Phase::Securing),
    (Phase::Dialling, PhaseInput::NextAddress, Phase::Dialling),
    (Phase::Dialling, PhaseInput::NextHost, Phase::Resolving),
    (Phase::Dialling, PhaseInput::NextCycle, Phase::Waiting),
    (Phase::Dialling, PhaseInput::End, Phase::Ended),
    (Phase::Securing, PhaseInput::Connected, Phase::Handshake),
    (Phase::Securing, PhaseInput::NextAddress, Phase::Dialling),
    (Phase::Securing, PhaseInput::NextHost, Phase::Resolving),
    (Phase::Securing, PhaseInput::NextCycle, Phase::Waiting),
    (Phase::Securing, PhaseInput::End, Phase::Ended),
    (Phase::Handshake, PhaseInput::Opened, Phase::Open),
    (Phase::Handshake, PhaseInput::SetUp, Phase::SettingUp),
    (Phase::Handshake, PhaseInput::Reopened, Phase::Replaying),
    (Phase::Handshake, PhaseInput::NextAddress, Phase::Dialling),
    (Phase::Handshake, PhaseInput::NextHost, Phase::Resolving),
    (Phase::Handshake, PhaseInput::NextCycle, Phase::Waiting),
    (Phase::Handshake, PhaseInput::End, Phase::Ended),
    (Phase::Replaying, PhaseInput::SetUp, Phase::SettingUp),
    (Phase::Replaying, PhaseInput::Replayed, Phase::Attaching),
    (Phase::Replaying, PhaseInput::Lost, Phase::Waiting),
    (Phase::Replaying, PhaseInput::End, Phase::Ended),
    (Phase::SettingUp, PhaseInput::Opened, Phase::Open),
    (Phase::SettingUp, PhaseInput::Replayed, Phase::Attaching),
    (Phase::SettingUp, PhaseInput::NextAddress, Phase::Dialling),
    (Phase::SettingUp, PhaseInput::NextHost, Phase::Resolving),
    (Phase::SettingUp, PhaseInput::NextCycle, Phase::Waiting),
    (Phase::SettingUp, PhaseInput::Lost, Phase::Waiting),
    (Phase::SettingUp, PhaseInput::End, Phase::Ended),
    (Phase::Attaching, PhaseInput::Attached, Phase::Open),
    (Phase::Attaching, PhaseInput::Lost, Phase::Waiting),
    (Phase::Attaching, PhaseInput::End, Phase::Ended),
    (Phase::Open, PhaseInput::Lost, Phase::Waiting),
    (Phase::Open, PhaseInput::End, Phase::Ended),
    (Phase::Waiting, PhaseInput::Due, Phase::Resolving),
    (Phase::Waiting, PhaseInput::End, Phase::Ended),
];

/// The states of a session as a Mermaid diagram.
pub(crate) fn diagram() -> String {
    machine::diagram(TRANSITIONS)
}

impl Phase {
    pub(super) fn step(&mut self, input: PhaseInput) {
        machine::step(TRANSITIONS, self, input);
    }

    /// Whether a transport is connected and in use.
    pub(super) const fn has_link(self) -> bool {
        matches!(self, Self::Handshake) || self.is_up()
    }

    /// Whether a transport is connected and its connection was opened.
    pub(super) const fn is_up(self) -> bool {
        matches!(self, Self::Replaying | Self::SettingUp | Self::Attaching | Self::Open)
    }
}
