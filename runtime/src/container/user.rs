//! Who a process is: names and numbers against the image's own `/etc/passwd` and `/etc/group`.

use super::spec::User;

/// Who is asked for, by the pod and by the image.
#[derive(Clone, Debug, Default)]
pub struct Wanted<'a> {
    /// By number.
    pub uid: Option<i64>,
    /// By name.
    pub name: &'a str,
    /// The group, by number.
    pub gid: Option<i64>,
    /// `user`, `uid`, `user:group` or `uid:gid`, from the image.
    pub of_image: &'a str,
    /// More groups.
    pub supplemental: &'a [i64],
    /// Only the groups given count, not those of `/etc/group`.
    pub strict_groups: bool,
}

/// Who the process is, and where its home is.
#[derive(Clone, Debug, PartialEq)]
pub struct Resolved {
    /// User and groups.
    pub user: User,
    /// The home directory.
    pub home: String,
}

/// Finds out user, group, groups and home.
pub fn resolve(wanted: &Wanted<'_>, passwd: &str, group: &str) -> Result<Resolved, String> {
    let (image_user, image_group) = wanted.of_image.split_once(':').unwrap_or((wanted.of_image, ""));
    let asked = match (wanted.uid, wanted.name) {
        (Some(uid), _) => uid.to_string(),
        (None, "") => image_user.to_owned(),
        (None, name) => name.to_owned(),
    };
    let by_image = wanted.uid.is_none() && wanted.name.is_empty();
    let account = Account::find(&asked, passwd)?;
    let gid = match wanted.gid {
        Some(gid) => checked_id(gid)?,
        None if by_image && !image_group.is_empty() => group_id(image_group, group)?,
        None => account.gid,
    };
    let mut groups = vec![gid];
    for supplemental in wanted.supplemental {
        groups.push(checked_id(*supplemental)?);
    }
    if !wanted.strict_groups {
        groups.extend(memberships(&account.name, group));
    }
    let mut seen = std::collections::BTreeSet::new();
    groups.retain(|gid| seen.insert(*gid));
    Ok(Resolved { user: User { uid: account.uid, gid, groups }, home: account.home })
}

struct Account {
    name: String,
    uid: u32,
    gid: u32,
    home: String,
}

impl Account {
    /// A number need not be listed, a name must be.
    fn find(asked: &str, passwd: &str) -> Result<Account, String> {
        let asked = if asked.is_empty() { "0" } else { asked };
        let number = asked.parse::<i64>().ok().map(checked_id).transpose()?;
        let listed = passwd.lines().filter_map(Account::parse);
        let found = listed.into_iter().find(|account| match number {
            Some(uid) => account.uid == uid,
            None => account.name == asked,
        });
        match (found, number) {
            (Some(account), _) => Ok(account),
            (None, Some(uid)) => Ok(Account { name: String::new(), uid, gid: 0, home: "/".to_owned() }),
            (None, None) => Err(format!("unable to find user {asked}: no matching entries in passwd file")),
        }
    }

    fn parse(line: &str) -> Option<Account> {
        let fields: Vec<&str> = line.trim().split(':').collect();
        let [name, _, uid, gid, rest @ ..] = fields.as_slice() else { return None };
        let home = rest.get(1).filter(|home| !home.is_empty()).unwrap_or(&"/");
        Some(Account {
            name: (*name).to_owned(),
            uid: uid.parse().ok()?,
            gid: gid.parse().ok()?,
            home: (*home).to_owned(),
        })
    }
}

fn group_id(asked: &str, group: &str) -> Result<u32, String> {
    if let Ok(number) = asked.parse::<i64>() {
        return checked_id(number);
    }
    let found = groups_of(group).find(|(name, _, _)| *name == asked);
    found
        .map(|(_, gid, _)| gid)
        .ok_or_else(|| format!("unable to find group {asked}: no matching entries in group file"))
}

fn memberships<'a>(name: &'a str, group: &'a str) -> impl Iterator<Item = u32> + 'a {
    let named = groups_of(group).filter(move |(_, _, members)| {
        !name.is_empty() && members.split(',').any(|member| member.trim() == name)
    });
    named.map(|(_, gid, _)| gid)
}

fn groups_of(group: &str) -> impl Iterator<Item = (&str, u32, &str)> {
    group.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let (name, _, gid) = (fields.next()?, fields.next()?, fields.next()?);
        Some((name, gid.parse().ok()?, fields.next().unwrap_or_default()))
    })
}

/// Larger ids wrap around somewhere, and zero is where they arrive.
fn checked_id(id: i64) -> Result<u32, String> {
    u32::try_from(id)
        .ok()
        .filter(|id| *id <= i32::MAX as u32)
        .ok_or_else(|| format!("uids and gids must be in range 0-{}", i32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34::/var/www:/bin/false\n";
    const GROUP: &str = "root:x:0:\nwww:x:34:\nssl:x:50:other,web\n";

    #[test]
    fn the_pod_decides_before_the_image() {
        let wanted = Wanted { uid: Some(1000), of_image: "web:www", ..Wanted::default() };
        let resolved = resolve(&wanted, PASSWD, GROUP).unwrap();
        assert_eq!(resolved.user, User { uid: 1000, gid: 0, groups: vec![0] });
        assert_eq!(resolved.home, "/");
    }

    #[test]
    fn names_of_the_image_are_looked_up_in_the_image() {
        let wanted = Wanted { of_image: "web", supplemental: &[7, 50], ..Wanted::default() };
        let resolved = resolve(&wanted, PASSWD, GROUP).unwrap();
        assert_eq!(resolved.user, User { uid: 33, gid: 34, groups: vec![34, 7, 50] });
        assert_eq!(resolved.home, "/var/www");
        let wanted = Wanted { of_image: "web:ssl", strict_groups: true, ..Wanted::default() };
        assert_eq!(
            resolve(&wanted, PASSWD, GROUP).unwrap().user,
            User { uid: 33, gid: 50, groups: vec![50] }
        );
    }

    #[test]
    fn nobody_becomes_root_by_mistake() {
        let refused = |wanted: Wanted<'_>| resolve(&wanted, PASSWD, GROUP).unwrap_err();
        let unknown = Wanted { of_image: "ghost", ..Wanted::default() };
        assert_eq!(refused(unknown), "unable to find user ghost: no matching entries in passwd file");
        let wrapping = Wanted { of_image: "4294967296", ..Wanted::default() };
        assert_eq!(refused(wrapping), "uids and gids must be in range 0-2147483647");
    }
}
