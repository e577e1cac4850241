//! Settling.

use std::time::Duration;

use crate::dead_letter::DeadLetterId;
use crate::error::Error;
use crate::event::{Fingerprint, Position};
use crate::limits::check;
use crate::redis::codec;
use crate::redis::publish::refusal;
use crate::redis::reply::Reply;
use crate::redis::scripts::{EXTEND, SETTLE};
use crate::redis::store::{Call, RedisStore};
use crate::settle::{Receipt, Recipient, Settled, Settlement};
use crate::time::Timestamp;

impl RedisStore {
    /// Ends deliveries, in order. Those of one consumer that follow each other are one part of the call.
    pub(super) async fn settle(
        &self,
        settlements: Vec<(Receipt, Settlement)>,
    ) -> Result<Vec<Result<Settled, Error>>, Error> {
        check("batch", || "a batch of settlements".into(), settlements.len(), self.config().limits.batch)?;
        let mut wrong: Vec<Option<Error>> =
            settlements.iter().map(|each| self.check_settlement(&each.1).err()).collect();
        let allowed: Vec<&(Receipt, Settlement)> =
            settlements.iter().zip(&wrong).filter(|(_, wrong)| wrong.is_none()).map(|(each, _)| each).collect();
        let mut answers = self.settle_allowed(&allowed).await?.into_iter();
        let answer = |wrong: &mut Option<Error>| match wrong.take() {
            Some(error) => Err(error),
            None => answers.next().unwrap_or(Err(Error::Closed)),
        };
        Ok(wrong.iter_mut().map(answer).collect())
    }

    fn check_settlement(&self, settlement: &Settlement) -> Result<(), Error> {
        let limits = &self.config().limits;
        settlement.check(limits)?;
        if let Settlement::Commit(outputs) = settlement { limits.check_events(outputs) } else { Ok(()) }
    }

    async fn settle_allowed(
        &self,
        settlements: &[&(Receipt, Settlement)],
    ) -> Result<Vec<Result<Settled, Error>>, Error> {
        if settlements.is_empty() {
            return Ok(Vec::new());
        }
        let mut call = self.call_again(SETTLE);
        for run in settlements.chunk_by(|one, next| one.0.recipient() == next.0.recipient()) {
            write_recipient(&mut call, run[0].0.recipient());
            let items = || run.chunk_by(|one, next| follows(one, next));
            call.number(items().count());
            for item in items() {
                let (receipt, settlement) = item[0];
                call.number(receipt.position());
                call.number(receipt.delivery());
                if item.len() > 1 {
                    call.arg("acks");
                    call.number(item.len());
                } else {
                    self.write_settlement(&mut call, settlement);
                }
            }
        }
        let answer = call.answer().await?;
        let unexpected = || Call::unexpected(SETTLE, &answer);
        let mut settled = Vec::with_capacity(settlements.len());
        for one in answer.get(1).and_then(Reply::as_list).ok_or_else(unexpected)? {
            if let Some(acked) = one.as_u64() {
                settled.extend((0..acked).map(|_| Ok(Settled::Acked)));
                continue;
            }
            let receipt = settlements.get(settled.len()).ok_or_else(unexpected)?;
            settled.push(self.settled(one, &receipt.0).inspect(|settled| {
                if let Settled::Retrying(at) = settled {
                    self.arm(*at);
                }
            }));
        }
        if settled.len() == settlements.len() { Ok(settled) } else { Err(unexpected()) }
    }

    fn write_settlement(&self, call: &mut Call<'_>, settlement: &Settlement) {
        match settlement {
            Settlement::Ack => call.arg("ack"),
            Settlement::Commit(outputs) => {
                call.arg("commit");
                call.arg(*Fingerprint::of_outputs(outputs).as_bytes());
                self.write_events(call, outputs, true);
            }
            Settlement::Nack { delay, reason } => {
                call.arg("nack");
                call.arg(delay.map(|delay| delay.as_micros().to_string()).unwrap_or_default());
                call.random();
                call.number(u8::from(reason.is_some()));
                call.arg(reason.as_deref().unwrap_or_default());
            }
            Settlement::DeadLetter { reason } => {
                call.arg("dead");
                call.arg(reason.as_str());
            }
        }
    }

    /// What a script says became of a delivery.
    fn settled(&self, answer: &Reply, receipt: &Receipt) -> Result<Settled, Error> {
        let unexpected = || Call::unexpected(SETTLE, answer);
        let number = || answer.get(1).and_then(Reply::as_u64).ok_or_else(unexpected);
        match answer.get(0).and_then(Reply::as_str) {
            Some("acked") => Ok(Settled::Acked),
            Some("committed") => {
                let published = answer.get(1).and_then(Reply::as_list);
                let published =
                    published.and_then(|list| list.iter().map(codec::one_published).collect::<Option<Vec<_>>>());
                published.map(|published| Settled::Committed(published.into())).ok_or_else(unexpected)
            }
            Some("retrying") => Ok(Settled::Retrying(Timestamp::from_micros(number()?))),
            Some("dead") => Ok(Settled::DeadLettered(DeadLetterId::new(number()?))),
            _ => Err(self.not_settled(answer, receipt).unwrap_or_else(unexpected)),
        }
    }

    fn not_settled(&self, answer: &Reply, receipt: &Receipt) -> Option<Error> {
        match answer.get(0)?.as_str()? {
            "stale" => {
                let current = answer.get(1).and_then(Reply::as_u64);
                Some(receipt.stale_error(current.and_then(|current| u32::try_from(current).ok())))
            }
            "already" => Some(receipt.already_settled_error(&match answer.get(1)?.as_str()? {
                "committed" => Settled::Committed([].into()),
                "retrying" => Settled::Retrying(Timestamp::EPOCH),
                "dead" => Settled::DeadLettered(DeadLetterId::default()),
                _ => Settled::Acked,
            })),
            "forgotten" => Some(Error::NotRetained {
                topic: receipt.recipient().topic.clone(),
                position: receipt.position(),
                oldest: Position::new(answer.get(1)?.as_u64()?),
            }),
            _ => refusal(answer, &self.config().limits),
        }
    }

    pub(super) async fn extend(&self, receipt: &Receipt, by: Duration) -> Result<Timestamp, Error> {
        self.config().limits.check_ack_timeout(by)?;
        let recipient = receipt.recipient();
        let mut call = self.call_again(EXTEND);
        write_recipient(&mut call, recipient);
        call.number(receipt.position());
        call.number(receipt.delivery());
        call.number(by.as_micros());
        let answer = call.answer().await?;
        match (answer.get(0).and_then(Reply::as_str), answer.get(1).and_then(Reply::as_u64)) {
            (Some("ok"), Some(deadline)) => {
                let deadline = Timestamp::from_micros(deadline);
                self.arm(deadline);
                Ok(deadline)
            }
            _ => Err(self.not_settled(&answer, receipt).unwrap_or_else(|| Call::unexpected(EXTEND, &answer))),
        }
    }
}

/// Whether two acks are of events in a row, handed out as often.
fn follows(one: &(Receipt, Settlement), next: &(Receipt, Settlement)) -> bool {
    matches!((&one.1, &next.1), (Settlement::Ack, Settlement::Ack))
        && one.0.position().next() == next.0.position()
        && one.0.delivery() == next.0.delivery()
}

fn write_recipient(call: &mut Call<'_>, recipient: &Recipient) {
    call.arg(recipient.topic.as_str());
    call.arg(recipient.group.as_str());
    call.number(recipient.incarnation);
    call.number(recipient.consumer);
}
