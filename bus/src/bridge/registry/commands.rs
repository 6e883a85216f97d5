//! `set`, `get` and `cmd`: from a message to an order, and from an answer to exactly one ack.

use std::time::Duration;

use super::Registry;
use crate::bridge::metrics::Reason;
use crate::bridge::request::{Asked, granted, refused};
use crate::bridge::{Action, Answer, ORDER_QUEUE, Order, Request, RequestId, Uid};
use crate::id::{NodeId, ResourceId};
use crate::payload::{AckStatus, EventType, InvalidRequest, PlainRequest, SetRequest, State};
use crate::session::Message;
use crate::time::Now;
use crate::topic::{NodeCommand, Topic};

/// A request as it was read, before anything is known of the node.
struct Wanted {
    asked: Asked,
    action: Result<Wish, InvalidRequest>,
    timeout_ms: Option<u64>,
}

enum Wish {
    Do(Action),
    Forget,
}

impl Registry {
    /// A request on one of our subscriptions; ignored when the node is another bridge's.
    pub(super) fn handle_request(&mut self, topic: Topic, message: &Message, now: Now) {
        let Some(uid) = topic.node().and_then(|node| self.ours(node)).cloned() else {
            return;
        };
        if message.retain {
            // A stale command must not fire when a bridge starts.
            self.metrics.dropped(Reason::RetainedRequest);
            return;
        }
        let Some(wanted) = self.read(&uid, topic, message, now) else {
            return;
        };
        let Wanted {
            mut asked,
            action,
            timeout_ms,
        } = wanted;
        let refusal = match (&action, self.nodes.get(&uid)) {
            (Err(error), _) => Some(error.to_string()),
            (Ok(Wish::Forget), _) => None,
            (Ok(_), Some(node)) if node.state == State::Offline => {
                Some("the node is offline".to_owned())
            }
            (Ok(Wish::Do(_)), node) => {
                let missing = asked
                    .resource
                    .as_ref()
                    .filter(|r| node.and_then(|node| node.resource(r)).is_none());
                missing.map(|resource| format!("the node has no resource {resource}"))
            }
        };
        match (refusal, action) {
            (Some(error), _) => self.end(&uid, asked, &refused(AckStatus::Rejected, error), now),
            (None, Ok(Wish::Do(action))) => {
                let timeout = granted(timeout_ms);
                self.order(&uid, asked, action, timeout, now);
            }
            (None, Ok(Wish::Forget)) => {
                let answer = Answer {
                    status: AckStatus::Ok,
                    code: None,
                    v: None,
                    error: None,
                };
                asked.resource = None;
                self.end(&uid, asked, &answer, now);
                self.forget(&uid, now);
            }
            (None, Err(_)) => {}
        }
    }

    fn ours(&self, id: &NodeId) -> Option<&Uid> {
        match self.ids.get(id)? {
            super::Holder::Ours(uid) => Some(uid),
            super::Holder::Other(_) => None,
        }
    }

    fn path(&self, uid: &Uid, resource: &ResourceId) -> String {
        let entry = self.nodes.get(uid).and_then(|node| node.resource(resource));
        entry.map_or_else(String::new, |entry| entry.resource.path.clone())
    }

    fn read(&self, uid: &Uid, topic: Topic, message: &Message, now: Now) -> Option<Wanted> {
        if let Topic::Set(node, resource) = topic {
            let path = self.path(uid, &resource);
            let mut asked = Asked::new(Topic::Ack(node, resource), "set", message, now);
            // Message Expiry on a set is its time-out (MQTT 5 section 3.3.2.3.3).
            let expiry = message.expiry.map(|seconds| u64::from(seconds) * 1000);
            return Some(match SetRequest::parse(&message.payload) {
                Ok(SetRequest {
                    v: value,
                    method,
                    id,
                    timeout_ms,
                }) => {
                    asked.id = id;
                    let action = Ok(Wish::Do(Action::Set {
                        path,
                        value,
                        method,
                    }));
                    Wanted {
                        asked,
                        action,
                        timeout_ms: timeout_ms.or(expiry),
                    }
                }
                Err(error) => Wanted {
                    asked,
                    action: Err(error),
                    timeout_ms: None,
                },
            });
        }
        let (ack, op, wish) = match topic {
            Topic::Get(node, resource) => {
                let path = self.path(uid, &resource);
                (
                    Topic::Ack(node, resource),
                    "get",
                    Wish::Do(Action::Get { path }),
                )
            }
            Topic::Command(node, op) => {
                let wish = match op {
                    NodeCommand::Rediscover => Wish::Do(Action::Rediscover),
                    NodeCommand::Ping => Wish::Do(Action::Ping),
                    NodeCommand::Forget => Wish::Forget,
                };
                (Topic::CommandAck(node, op), op.as_str(), wish)
            }
            _ => return None,
        };
        let mut asked = Asked::new(ack, op, message, now);
        Some(match PlainRequest::parse(&message.payload) {
            Ok(PlainRequest { id, timeout_ms }) => {
                asked.id = id;
                Wanted {
                    asked,
                    action: Ok(wish),
                    timeout_ms,
                }
            }
            Err(error) => Wanted {
                asked,
                action: Err(error),
                timeout_ms: None,
            },
        })
    }

    fn order(&mut self, uid: &Uid, asked: Asked, action: Action, timeout: Duration, now: Now) {
        let busy = (self.orders.len() >= ORDER_QUEUE).then_some("the bridge is busy");
        if let Some(why) = busy.or_else(|| self.requests.refusal(uid)) {
            return self.end(uid, asked, &refused(AckStatus::Rejected, why), now);
        }
        let deadline = now.mono + timeout;
        let id = self.requests.push(uid, asked, deadline);
        self.orders.push_back(Order::Execute(Request {
            id,
            uid: uid.clone(),
            action,
            deadline,
        }));
    }

    /// The driver's answer; one that comes too late has been answered already.
    pub(super) fn handle_answer(&mut self, id: RequestId, answer: &Answer, now: Now) {
        if let Some((uid, asked)) = self.requests.take(id) {
            self.end(&uid, asked, answer, now);
        }
    }

    pub(super) fn time_out(&mut self, id: RequestId, now: Now) {
        let answer = refused(AckStatus::Timeout, "the node did not answer in time");
        self.handle_answer(id, &answer, now);
    }

    pub(super) fn fail_request(&mut self, id: RequestId, why: &str, now: Now) {
        self.handle_answer(id, &refused(AckStatus::Error, why), now);
    }

    fn end(&mut self, uid: &Uid, asked: Asked, answer: &Answer, now: Now) {
        self.metrics.request(answer.status);
        let topic = self.config.base.topic(&asked.ack);
        for ack in asked.acks(answer, topic, now) {
            self.output.ordered(ack);
        }
        if asked.op == "get" || asked.op == "ping" {
            // Nothing happened to the node.
            return;
        }
        let status = serde_json::to_value(answer.status).unwrap_or_default();
        let resource = serde_json::to_value(&asked.resource).unwrap_or_default();
        let detail = [
            ("op", asked.op.into()),
            ("resource", resource),
            ("status", status),
            ("id", asked.id.into()),
            ("error", answer.error.clone().into()),
        ];
        self.event(EventType::Command, uid, detail, now.wall);
    }
}
