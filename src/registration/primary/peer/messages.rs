//! What each message of a peer does.

use super::*;

impl<S: AsyncRead + AsyncWrite> Link<'_, S> {
    pub(super) async fn handle(&mut self, received: Received) -> Result<(), End> {
        let Received { message, bytes } = received;
        match message {
            Message::SetupRequest(request) if !self.is_client() => {
                self.on_setup_request(&request, &bytes).await
            }
            Message::SetupResponse(response) => self.on_setup_response(&response, &bytes).await,
            Message::KemRequest(request) => self.on_kem_request(request).await,
            Message::KemResponse(response) => self.on_kem_response(response).await,
            Message::ListRequest(request) => self.on_list_request(request).await,
            Message::ListResponse(response) => self.on_list_response(&response).await,
            Message::Renew(_) if self.is_client() => {
                let wanted = |record: &mut PairingRecord| {
                    record.renewal.get_or_insert(Renewal::Wanted);
                };
                self.update(wanted).await
            }
            Message::Revoke(_) => {
                self.update(PairingRecord::end).await?;
                tracing::warn!(pairing = %self.pairing.name, peer = %self.pairing.peer, "the peer revoked the pairing");
                Err(End::Gone("the peer revoked the pairing".to_owned()))
            }
            Message::Ping(Ping { number }) => self.send(&Message::Pong(Pong { number })).await,
            Message::Pong(_) if self.pulse.answered() => Ok(()),
            Message::Refused(Refused { reason }) => {
                if reason == Reason::Revoked {
                    self.update(PairingRecord::end).await?;
                }
                Err(End::Gone(format!("the peer refused: {}", reason.word())))
            }
            other => Err(out_of_order(other.kind())),
        }
    }

    pub(super) async fn update<T>(
        &self,
        edit: impl FnMut(&mut PairingRecord) -> T,
    ) -> Result<T, End> {
        let updated = self.primary.update(self.pairing, edit).await;
        updated.map_err(|error| End::Gone(error.to_string()))
    }

    async fn on_setup_request(&mut self, request: &SetupRequest, bytes: &[u8]) -> Result<(), End> {
        while self
            .begun
            .pop_front_if(|begun| begun.elapsed() > ANSWER)
            .is_some()
        {}
        if self.begun.len() >= NEGOTIATIONS {
            let why = "it negotiates without end".to_owned();
            return Err(End::Refused(Reason::Busy, Closed::TooMany, why));
        }
        self.begun.push_back(Instant::now());
        let offer = negotiate::offer(self.pairing, request, bytes);
        let (offered, response) = offer.map_err(|error| refuse(&error))?;
        self.negotiation = Negotiation::Offered(Box::new(offered), Instant::now());
        self.send(&response).await
    }

    async fn on_setup_response(
        &mut self,
        response: &SetupResponse,
        bytes: &[u8],
    ) -> Result<(), End> {
        let Negotiation::Asked(asked, _) = &self.negotiation else {
            return Err(out_of_order("setup response"));
        };
        let told = self.primary.record(self.pairing).told();
        let encapsulated = negotiate::encapsulate(self.pairing, asked, response, bytes, told);
        let (master, request) = encapsulated.map_err(|error| refuse(&error))?;
        self.negotiation = Negotiation::Encapsulated(Box::new(master), Instant::now());
        self.send(&request).await
    }

    async fn on_kem_request(&mut self, request: KemRequest) -> Result<(), End> {
        let Negotiation::Offered(offered, _) =
            std::mem::replace(&mut self.negotiation, Negotiation::None)
        else {
            return Err(out_of_order("kem request"));
        };
        let respond = |status, entries| Message::KemResponse(KemResponse { status, entries });
        let master = match negotiate::decapsulate(self.pairing, &offered, &request) {
            Ok(master) => master,
            Err(NegotiationError::NotConfirmed) => {
                self.send(&respond(Status::NotConfirmed, Vec::new()))
                    .await?;
                let why = NegotiationError::NotConfirmed.to_string();
                return Err(End::Closed(Closed::NotConfirmed, why));
            }
            Err(error) => return Err(refuse(&error)),
        };
        self.check_groups(&request.entries)?;
        if let Err(end) = self.check_bounds(&request.entries) {
            self.send(&respond(Status::Refused, Vec::new())).await?;
            return Err(end);
        }
        self.take_in(&master, &request.entries).await?;
        let told = self.primary.record(self.pairing).told();
        self.is_open = true;
        self.send(&respond(Status::Ok, told)).await
    }

    async fn on_kem_response(&mut self, response: KemResponse) -> Result<(), End> {
        let Negotiation::Encapsulated(master, _) =
            std::mem::replace(&mut self.negotiation, Negotiation::None)
        else {
            return Err(out_of_order("kem response"));
        };
        match response.status {
            Status::Ok => {
                self.check_bounds(&response.entries)?;
                self.is_open = true;
                self.take_in(&master, &response.entries).await
            }
            Status::NotConfirmed => {
                let why = NegotiationError::NotConfirmed.to_string();
                Err(End::Closed(Closed::NotConfirmed, why))
            }
            status => Err(End::Gone(format!("the peer answered {}", status.word()))),
        }
    }

    /// Keeps a new master secret, and the list that came with it, which was checked.
    async fn take_in(
        &mut self,
        master: &MasterRecord,
        entries: &[crate::snapshot::grant::Listed],
    ) -> Result<(), End> {
        // Before anybody can seal under it, so that what was sealed can be read afterwards.
        if let Some(keylog) = &self.primary.keylog {
            let mut trial = (*self.primary.record(self.pairing)).clone();
            trial.add_master(master.clone(), entries.to_vec(), now());
            keylog.note(self.pairing, &trial);
        }
        self.update(|record| record.add_master(master.clone(), entries.to_vec(), now()))
            .await?;
        self.renew_sent = None;
        self.unknown = None;
        // The peer is to be told when our Secondaries hold it.
        tracing::info!(
            pairing = %self.pairing.name,
            peer = %self.pairing.peer,
            secret = %master.id,
            mode = master.mode.word(),
            "a master secret was agreed on"
        );
        Ok(())
    }

    /// Checks the peer's list as far as its role says more than a message does.
    fn check_groups(&self, entries: &[crate::snapshot::grant::Listed]) -> Result<(), End> {
        if !self.is_client() && entries.iter().any(|listed| !listed.group.is_empty()) {
            let why = "clients have no groups".to_owned();
            return Err(End::Closed(Closed::Malformed, why));
        }
        Ok(())
    }

    /// Checks that the peer lists no more than it may.
    fn check_bounds(&self, entries: &[crate::snapshot::grant::Listed]) -> Result<(), End> {
        let may = &self.pairing.peer_entries;
        let within = |listed: &crate::snapshot::grant::Listed| {
            may.is_empty() || may.iter().any(|prefix| prefix.contains(&listed.prefix))
        };
        if let Some(other) = entries.iter().find(|listed| !within(listed)) {
            let why = format!(
                "it lists {}, which is in none of `peer_entries`",
                other.prefix
            );
            return Err(End::Closed(Closed::NotAllowed, why));
        }
        let size = |listed: &crate::snapshot::grant::Listed| {
            LISTED + listed.group.len() + 5 * listed.generations.len()
        };
        if entries.iter().map(size).sum::<usize>() > MAX_LIST {
            let why = format!("its list takes more than {MAX_LIST} bytes");
            return Err(End::Closed(Closed::TooMany, why));
        }
        Ok(())
    }

    async fn on_list_request(&mut self, request: ListRequest) -> Result<(), End> {
        self.check_groups(&request.entries)?;
        if let Err(end) = self.check_bounds(&request.entries) {
            let response = ListResponse {
                serial: request.serial,
                status: Status::Refused,
            };
            self.send(&Message::ListResponse(response)).await?;
            return Err(end);
        }
        // Who comes with a secret from before begins with its list.
        self.is_open |= matches!(self.negotiation, Negotiation::None);
        if self.theirs.is_some_and(|newest| request.serial < newest) {
            let why = format!("list {} came again", request.serial);
            return Err(End::Closed(Closed::Replayed, why));
        }
        if self.owed.len() >= UNANSWERED {
            let why = "it sends lists without waiting for answers".to_owned();
            return Err(End::Closed(Closed::TooMany, why));
        }
        self.theirs = Some(request.serial);
        let record = self.primary.record(self.pairing);
        let known = request
            .pms
            .is_some_and(|pms| record.masters.iter().any(|master| master.id == pms));
        if !known {
            if self.is_client() && matches!(self.negotiation, Negotiation::None) {
                self.update(|record| {
                    record.renewal.get_or_insert(Renewal::Wanted);
                })
                .await?;
            }
            let response = ListResponse {
                serial: request.serial,
                status: Status::UnknownPms,
            };
            return self.send(&Message::ListResponse(response)).await;
        }
        let entries = request.entries;
        let version = self
            .update(|record| {
                if record.peer == entries {
                    return record.version;
                }
                record.peer.clone_from(&entries);
                record.version + 1
            })
            .await?;
        self.owed.push_back((request.serial, version));
        Ok(())
    }

    async fn on_list_response(&mut self, response: &ListResponse) -> Result<(), End> {
        let Some((serial, _)) = self.asked.take_if(|(serial, _)| *serial == response.serial) else {
            return Err(out_of_order("list response"));
        };
        if response.status == Status::UnknownPms {
            self.unknown = Some(Instant::now());
        }
        match response.status {
            Status::Ok => {
                self.unknown = None;
                self.answered = self.answered.max(Some(serial));
                self.update(|record| record.answered = record.answered.max(serial))
                    .await
            }
            Status::UnknownPms if self.is_client() => {
                self.update(|record| {
                    record.renewal.get_or_insert(Renewal::Wanted);
                })
                .await
            }
            Status::UnknownPms => {
                self.renew_sent = Some(Instant::now());
                self.send(&Message::Renew(Renew)).await
            }
            status => Err(End::Gone(format!("the peer answered {}", status.word()))),
        }
    }
}
