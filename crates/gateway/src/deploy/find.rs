//! Which deployment or service a person means.

use api::{
    ApiError, DeploymentId,
    deploy::{Action, Course, Deployment, Phase, Plan, Service},
    nearest,
};

use crate::view::{ServiceName, Versioned, View, Within, name_of};

/// The deployment that a person means: an id, the beginning of one, or the name of a service or batch job, of which the
/// one under way comes first, then the youngest: one that waits for its time doesn't hide what was done since.
///
/// # Errors
/// `NOT_FOUND`, also when several fit; the message says which.
pub fn deployment<'a>(view: &'a View, text: &str, within: Within<'_>) -> Result<&'a Versioned<Deployment>, ApiError> {
    let seen = |d: &&Versioned<Deployment>| within.only.is_none_or(|only| d.namespace == only);
    let name = (within.namespace.to_owned(), text.to_owned());
    let under_way = |d: &Deployment| d.started_at.is_some() && !d.phase.ended();
    let of_service = view
        .deployments_of(&name)
        .max_by_key(|d| (under_way(d), d.created_at, d.id.clone()));
    if let Some(found) = of_service.filter(seen) {
        return Ok(found);
    }
    let fits = |d: &&Versioned<Deployment>| !text.is_empty() && d.id.as_str().starts_with(text);
    let found: Vec<_> = view.deployments().filter(seen).filter(fits).take(6).collect();
    match found.as_slice() {
        [one] => Ok(one),
        [] => {
            let what = if view.service(&name).is_some() {
                format!("the service '{text}' has no deployment on record")
            } else {
                format!(
                    "there is no deployment or service '{text}' in namespace '{}'",
                    within.namespace
                )
            };
            let hint = match near(view, text, within.namespace) {
                Some(near) => format!("did you mean {near}? clawbernetes deploy list --all"),
                None => "clawbernetes deploy list --all".to_owned(),
            };
            Err(ApiError::not_found(what).hint(hint))
        }
        several => {
            if let Some(exact) = several.iter().find(|d| d.id.as_str() == text) {
                return Ok(exact);
            }
            let ids: Vec<&str> = several.iter().map(|d| d.id.as_str()).collect();
            let message = format!("'{text}' fits several deployments: {}", ids.join(", "));
            Err(ApiError::not_found(message).hint("give more of the id"))
        }
    }
}

/// What going back comes to.
#[derive(Debug, PartialEq, Eq)]
pub enum Back {
    /// This deployment is turned round, or called off.
    Turn(DeploymentId),
    /// This deployment goes back already, and is to do so without waiting for requests.
    Hasten(DeploymentId),
    /// Another deployment of the service of that name and namespace goes back.
    Anew(ServiceName),
}

/// What a person means who wants to go back, without naming a revision.
///
/// Of a service it is what came in last; what waits for its time is called off by its id, unless the service has nothing else.
/// Of a deployment it is that one alone.
///
/// # Errors
/// `NOT_FOUND`; `CONFLICT` where it goes back already (whoever says so twice doesn't want to turn round), or where the
/// deployment that was named isn't the one that brought what runs.
pub fn going_back(view: &View, text: &str, within: Within<'_>, immediate: bool) -> Result<Back, ApiError> {
    let found = match deployment(view, text, within) {
        Ok(found) => found,
        // A service whose deployments are forgotten can go back all the same.
        Err(error) => {
            let service = service(view, text, within.namespace).map_err(|_| error)?;
            return Ok(Back::Anew((service.namespace.clone(), service.value.name.clone())));
        }
    };
    let name = name_of(found);
    let service = view.service(&name);
    let by_name = found.plan.workload == text;
    let anew = Ok(Back::Anew(name.clone()));
    if !found.phase.ended() {
        let goes_back = found.plan.action == Action::Rollback && found.course == Course::Forward;
        return match found.started_at {
            Some(_) if by_name && goes_back && immediate && !found.immediate => Ok(Back::Hasten(found.id.clone())),
            Some(_) if by_name && goes_back => Err(ApiError::conflict(format!(
                "{} of '{text}' is on its way back already",
                found.id
            ))
            .hint(format!(
                "follow it: clawbernetes deploy status {0} -w; stay with what was there: clawbernetes deploy rollback {0}",
                found.id
            ))),
            None if by_name && service.is_some_and(|s| !s.revisions.is_empty()) => anew,
            _ => Ok(Back::Turn(found.id.clone())),
        };
    }
    let Some(service) = service.filter(|_| !by_name) else {
        return anew;
    };
    if let Some(other) = &service.deployment {
        let message = format!("{} has ended, and {other} of '{}' is under way", found.id, name.1);
        return Err(
            ApiError::conflict(message).hint(format!("bring that one back: clawbernetes deploy rollback {other}"))
        );
    }
    let brought = matches!(found.plan.action, Action::Deploy | Action::Update) && found.phase == Phase::Complete;
    if !brought || found.value.revision != service.stable {
        let message = format!("{} isn't what brought the revision that '{}' runs", found.id, name.1);
        return Err(ApiError::conflict(message).hint(format!(
            "name the revision to go back to: clawbernetes deploy rollback {} --to VERSION",
            name.1
        )));
    }
    anew
}

/// The service that was made for a deployment alone which ends without ever having begun: nothing is left of it but its name
/// and its port. `None`: the deployment has begun or waits, or the service has a revision or another deployment.
#[must_use]
pub fn left_over<'a>(view: &'a View, deployment: &Deployment) -> Option<&'a Versioned<Service>> {
    if deployment.started_at.is_some() || !deployment.phase.ended() {
        return None;
    }
    let name = name_of(deployment);
    let mut others = view.deployments_of(&name).filter(|d| d.id != deployment.id);
    let service = view.service(&name)?;
    let empty = service.revisions.is_empty() && service.members.is_empty() && service.deployment.is_none();
    (empty && others.all(|d| d.phase.ended())).then_some(service)
}

/// Where the deployment stands that a plan waits for. `None`: it waits for none, or there is no such deployment.
#[must_use]
pub fn awaited(view: &View, plan: &Plan) -> Option<Phase> {
    let after = plan.schedule.as_ref()?.after.as_ref()?;
    view.deployment(after).map(|d| d.phase)
}

/// A service, by its name.
///
/// # Errors
/// `NOT_FOUND`, with the nearest name.
pub fn service<'a>(view: &'a View, name: &str, namespace: &str) -> Result<&'a Versioned<Service>, ApiError> {
    view.service(&(namespace.to_owned(), name.to_owned())).ok_or_else(|| {
        let message = format!("there is no service '{name}' in namespace '{namespace}'");
        ApiError::not_found(message).hint(match near(view, name, namespace) {
            Some(near) => format!("did you mean {near}? clawbernetes service list"),
            None => "clawbernetes service list".to_owned(),
        })
    })
}

fn near<'a>(view: &'a View, text: &str, namespace: &str) -> Option<&'a str> {
    let names = view
        .services()
        .filter(|s| s.namespace == namespace)
        .map(|s| s.value.name.as_str());
    nearest(text, names)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde::Serialize;
    use store::{Change, Record, Revision};

    use super::{
        super::stage::{self, at},
        *,
    };
    use crate::keys;

    const WITHIN: Within<'static> = Within {
        namespace: "default",
        only: None,
    };

    /// A service `web` of one good revision, which `dep-1` brought.
    struct There {
        service: Service,
        deployments: Vec<Deployment>,
    }

    impl There {
        fn new() -> Self {
            let (service, deployment) = stage::service(&[]);
            let mut there = Self {
                service,
                deployments: vec![deployment],
            };
            there.service.stable = Some(1);
            there.ends(Phase::Complete);
            there
        }

        fn last(&mut self) -> &mut Deployment {
            self.deployments.last_mut().unwrap()
        }

        fn ends(&mut self, phase: Phase) {
            self.last().phase = phase;
            self.last().finished_at = Some(at(1));
            self.service.deployment = None;
        }

        /// Another one is asked for: it begins, or waits.
        fn add(&mut self, action: Action, begins: bool) -> &mut Self {
            let number = self.deployments.len() + 1;
            let mut next = self.deployments[0].clone();
            next.id = DeploymentId::new(format!("dep-{number}"));
            next.created_at = at(number as i64 * 10);
            next.finished_at = None;
            next.started_at = begins.then_some(next.created_at);
            next.phase = if begins { Phase::Rolling } else { Phase::Pending };
            next.revision = begins.then_some(2);
            Arc::make_mut(&mut next.plan).action = action;
            if begins {
                self.service.deployment = Some(next.id.clone());
            }
            self.deployments.push(next);
            self
        }

        fn view(&self) -> View {
            let mut view = View::default();
            put(&mut view, keys::service("default", "web"), &self.service);
            for deployment in &self.deployments {
                put(&mut view, keys::deployment(&deployment.id), deployment);
            }
            view
        }

        fn back(&self, text: &str, immediate: bool) -> Result<Back, ApiError> {
            going_back(&self.view(), text, WITHIN, immediate)
        }

        #[track_caller]
        fn refuses(&self, text: &str, words: &str) {
            let error = self.back(text, false).unwrap_err();
            assert_eq!(error.code, api::ErrorCode::Conflict, "{error}");
            assert!(error.message.contains(words) && error.hint.is_some(), "{error:?}");
        }
    }

    fn put<T: Serialize>(view: &mut View, key: String, value: &T) {
        let record = Record {
            key: key.into(),
            value: serde_json::to_vec(value).unwrap().into(),
            created: Revision(1),
            modified: Revision(1),
            version: 1,
            lease: None,
        };
        view.apply(&Change::Put(record)).unwrap();
    }

    fn turn(id: &str) -> Back {
        Back::Turn(DeploymentId::new(id))
    }

    fn anew() -> Back {
        Back::Anew(("default".to_owned(), "web".to_owned()))
    }

    #[test]
    fn what_is_under_way_comes_before_what_waits_for_its_time() {
        let mut there = There::new();
        there.add(Action::Update, true).add(Action::Update, false);
        assert_eq!(deployment(&there.view(), "web", WITHIN).unwrap().id.as_str(), "dep-2");
        assert_eq!(there.back("web", true).unwrap(), turn("dep-2"));
        assert_eq!(there.back("dep-3", false).unwrap(), turn("dep-3"));
        // Nor is it what a service goes back from.
        let mut there = There::new();
        there.add(Action::Update, false);
        assert_eq!(there.back("web", false).unwrap(), anew());
        assert_eq!(there.back("dep-2", false).unwrap(), turn("dep-2"));
        assert_eq!(deployment(&there.view(), "web", WITHIN).unwrap().id.as_str(), "dep-2");
        // Where there is nothing else it is what is meant.
        let mut first = There::new();
        first.service.revisions.clear();
        first.service.stable = None;
        first.deployments.clear();
        let mut waits = There::new().add(Action::Deploy, false).last().clone();
        waits.id = DeploymentId::new("dep-1");
        first.deployments.push(waits);
        assert_eq!(first.back("web", false).unwrap(), turn("dep-1"));
    }

    #[test]
    fn who_says_twice_to_go_back_does_not_turn_round() {
        let mut there = There::new();
        there.add(Action::Rollback, true);
        there.refuses("web", "dep-2 of 'web' is on its way back already");
        assert_eq!(
            there.back("web", true).unwrap(),
            Back::Hasten(DeploymentId::new("dep-2"))
        );
        there.last().immediate = true;
        there.refuses("web", "already");
        assert!(there.back("web", true).is_err());
        assert_eq!(
            there.back("dep-2", false).unwrap(),
            turn("dep-2"),
            "that one, by its id"
        );
    }

    #[test]
    fn an_old_deployment_brings_nothing_else_back() {
        let mut there = There::new();
        assert_eq!(there.back("dep-1", false).unwrap(), anew());
        there.add(Action::Update, true);
        there.refuses("dep-1", "dep-2 of 'web' is under way");
        there.ends(Phase::RolledBack);
        there.refuses("dep-2", "isn't what brought");
        assert_eq!(there.back("dep-1", false).unwrap(), anew(), "that is what runs");
        there.last().phase = Phase::Complete;
        there.service.stable = Some(2);
        there.refuses("dep-1", "isn't what brought");
        there.add(Action::Scale, true).ends(Phase::Complete);
        there.refuses("dep-3", "isn't what brought");
        assert_eq!(there.back("web", false).unwrap(), anew());
        there.deployments.clear();
        assert_eq!(there.back("web", false).unwrap(), anew(), "they are forgotten");
    }

    #[test]
    fn a_service_goes_with_the_only_deployment_that_it_was_made_for() {
        let mut there = There::new();
        there.add(Action::Deploy, false).ends(Phase::Failed);
        let off = there.last().clone();
        assert!(left_over(&there.view(), &off).is_none(), "it has a revision");
        there.service.revisions.clear();
        assert!(left_over(&there.view(), &off).is_some());
        there.add(Action::Deploy, false);
        assert!(left_over(&there.view(), &off).is_none(), "another one waits");
        let begun = there.deployments[0].clone();
        assert!(left_over(&there.view(), &begun).is_none(), "it began once");
    }
}
