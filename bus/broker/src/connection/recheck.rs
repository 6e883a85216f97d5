//! Looking again at a client that was let in, after the rules changed.

use std::sync::Arc;

use bus::time::now;
use rustls_pki_types::UnixTime;

use super::End;
use super::packets::Client;
use crate::gate::Rules;
use crate::identity::Proof;
use crate::wire::Reason;

impl Client {
    /// Does nothing unless the rules changed since the last look.
    ///
    /// A client that would not be let in any more is closed. One that loses a subscription is
    /// closed too, since MQTT has no other way to tell it; its session goes on without that.
    pub(super) fn recheck(&mut self) -> Result<(), End> {
        if self.generation == self.broker.gate.generation() {
            return Ok(());
        }
        let rules = self.broker.gate.rules();
        self.generation = rules.generation;
        if let Err((kind, what)) = self.trusted(&rules) {
            self.refused(kind, what);
            return Err(End::Ended(Reason::NotAuthorized));
        }
        self.access = rules.acl.access(&self.identity);
        if let Some(will) = &self.will
            && !self.access.may_publish(&will.topic)
        {
            self.refused("will", &will.topic);
            self.will = None;
        }
        let access = &self.access;
        let withdrawn: Vec<String> = self.with(|session| {
            let refused = session
                .filters()
                .filter(|filter| !access.may_subscribe(filter));
            refused.map(str::to_owned).collect()
        })?;
        if withdrawn.is_empty() {
            return Ok(());
        }
        for filter in &withdrawn {
            self.refused("subscribe", filter);
        }
        self.withdraw(&withdrawn)?;
        self.broker.sessions.save(&self.session_key, self.epoch);
        Err(End::Ended(Reason::NotAuthorized))
    }

    /// Whether what the client proved itself with would be taken now; else which kind of proof it
    /// was, and a word for it.
    fn trusted(&self, rules: &Rules) -> Result<(), (&'static str, &'static str)> {
        let chain = match &self.proof {
            Proof::Nothing => return Ok(()),
            Proof::Password(login) if rules.passwords.has(login) => return Ok(()),
            Proof::Password(_) => {
                tracing::info!(identity = %self.identity, "a client's password was changed or taken away: its connection ends");
                return Err(("password", "password_withdrawn"));
            }
            Proof::Certificate(chain) => chain,
        };
        let withdrawn = ("certificate", "certificate_withdrawn");
        let (end_entity, intermediates) = chain.split_first().ok_or(withdrawn)?;
        let millis = now().wall.unix_millis();
        let since = std::time::Duration::from_millis(u64::try_from(millis).unwrap_or(0));
        let verifier = Arc::clone(&rules.trust.verifier);
        let verified = verifier.verify_client_cert(
            end_entity,
            intermediates,
            UnixTime::since_unix_epoch(since),
        );
        verified.map(|_| ()).map_err(|error| {
            tracing::info!(identity = %self.identity, %error, "a client's certificate is not taken any more: its connection ends");
            withdrawn
        })
    }
}
