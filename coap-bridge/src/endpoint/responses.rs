//! Responses to requests of ours: whose they are, and what follows from them.

use std::time::Instant;

use super::Endpoint;
use super::blocks::{Download, Progress, Upload};
use super::client::{Outgoing, Purpose, RequestError};
use super::code::Code;
use super::codec::{Message, Token, Type};
use super::layer::SendId;
use super::message::Response;
use super::metrics::Dropped;
use super::observe;
use super::options::number;
use super::remote::Remote;

impl Endpoint {
    pub(super) fn handle_response(
        &mut self,
        from: Remote,
        message: Message,
        send: Option<SendId>,
        now: Instant,
    ) {
        if let Some(send) = send {
            self.client.acknowledged(send);
        }
        let Message {
            kind,
            code,
            mid,
            token,
            options,
            payload,
        } = message;
        let response = Response {
            code,
            options,
            payload,
        };
        let asked = self.client.has_asked(from, &token);
        let observed = self.client.observations.get(&token);
        let grouped = self.groups.has_asked(&token);
        let known = asked || grouped || observed.is_some_and(|known| known.peer == from);
        let bad_option = response.options.has_bad_critical();
        match (kind, known && !bad_option) {
            (Type::Con, true) => self.layer.acknowledge(from, mid),
            (Type::Con, false) => self.layer.reset(from, mid),
            // A Reset ends an observation that is not ours any more.
            (Type::Non, false) if observe::sequence(&response).is_some() => {
                self.layer.reset(from, mid);
            }
            _ => {}
        }
        if known && !grouped {
            // Only who gets what is sent to this address knows the token.
            self.layer.verify(from, now);
        }
        if !known {
            self.layer.metrics.dropped(Dropped::Unmatched);
        } else if grouped {
            if !bad_option {
                self.handle_group_response(from, &token, response);
            }
        } else if !asked {
            self.handle_notification(token, response, bad_option, now);
        } else if let Some(mut outgoing) = self.client.remove(&token) {
            if let Some(send) = outgoing.send.take() {
                // The response came before the acknowledgement, and is one (section 5.2.2).
                self.layer.cancel(from, send, now);
            }
            if bad_option {
                self.layer.metrics.dropped(Dropped::CriticalOption);
                self.end(&outgoing, Err(RequestError::BadOption));
            } else {
                self.take_response(token, outgoing, response, now);
            }
        }
    }

    fn take_response(
        &mut self,
        token: Token,
        mut outgoing: Outgoing,
        response: Response,
        now: Instant,
    ) {
        if response.code == Code::UNAUTHORIZED
            && outgoing.echo.is_none()
            && let Some(echo) = response.options.first(number::ECHO)
        {
            outgoing.echo = Some(echo.to_vec());
            // An observation is renewed under its own token.
            let token = match outgoing.purpose {
                Purpose::Register => token,
                _ => self.fresh_token(),
            };
            return self.send_next_as(token, outgoing, now);
        }
        if outgoing.purpose == Purpose::Register {
            self.note_registration(token, &outgoing, &response, now);
        }
        let len = outgoing.request.payload.len();
        if outgoing.download.is_none() {
            let upload = &mut outgoing.upload;
            match upload.as_mut().map(|upload| upload.handle(&response, len)) {
                Some(Progress::Continue) => return self.send_next(outgoing, now),
                Some(Progress::Broken) => {
                    return self.end(&outgoing, Err(RequestError::BrokenBlocks));
                }
                Some(Progress::Done) => {}
                None => {
                    *upload = Upload::after_refusal(&response, len);
                    if upload.is_some() {
                        return self.send_next(outgoing, now);
                    }
                }
            }
        }
        let max = self.limits.max_body;
        let whole = match &mut outgoing.download {
            Some(download) => download.handle(&response, max),
            None => Download::begin(&response, max).map(|download| {
                outgoing.download = download;
                outgoing.download.is_none().then_some(response)
            }),
        };
        match whole {
            Ok(Some(whole)) if whole.payload.len() > max => {
                self.end(&outgoing, Err(RequestError::TooLarge));
            }
            Ok(Some(whole)) => self.end(&outgoing, Ok(whole)),
            Ok(None) => {
                if outgoing.purpose == Purpose::Register {
                    outgoing.purpose = Purpose::Registered;
                }
                self.send_next(outgoing, now);
            }
            Err(error) => self.end(&outgoing, Err(error.into())),
        }
    }
}
