"""The words by which the site's refusals are told apart: English and Chinese, and those of WordPress's other large
languages. `failure` has the order in which they are looked for. Pure."""

import re


def _any_of(*words: str) -> re.Pattern[str]:
    return re.compile("|".join(words), re.IGNORECASE)


STALE = _any_of(
    r"nonce|security|expired|cookie check failed|are you sure you want to do this|(?:refresh|reload) (?:the|this) page",
    r"过期|安全验证|刷新页面|過期|安全驗證|重新整理|セキュリティ|有効期限|期限切れ|보안|만료",
    r"sicherheits|abgelaufen|sécurité|expiré|seguridad|caducad|expirad|segurança|sicurezza|scadut|безопасност|ист[её]к",
)
# What WordPress says on a page of its own; a firewall's page may speak of security, too.
STALE_PAGE = _any_of(r"nonce|link you followed has expired|are you sure you want to do this|过期|過期")
RATE = _any_of(
    r"rate.?limit|too many|limit (?:reached|exceeded)|quota|slow down|频繁|次数|頻繁|次數|太快|額度|额度",
    r"zu viele|trop de|demasiad[ao]s|muit[ao]s (?:solicita|pedido|requisi)|tropp[ei] richieste|слишком (?:много|часто)",
    r"多すぎ|너무 많",
)
LENGTH = _any_of(
    r"too long|too many char|(?:character|length) limit|(?:maximum|max\.?) .{0,40}(?:char|length)",
    r"过长|字数|太长|過長|字數|太長|長すぎ|너무 (?:길|긴)",
    r"zu lang|zu viele zeichen|trop long|trop de caract|demasiado larg|demasiados caract|muito long|troppo lung",
    r"слишком длинн",
)
TIMEOUT = _any_of(
    r"tim(?:ed?|ing)[ -]?out|\bin time\b|超时|逾時|タイムアウト|시간 초과",
    r"zeitüberschreitung|délai .{0,20}dépassé|tiempo de espera|tempo limite|таймаут",
)
TROUBLE = _any_of(
    r"unavailable|overload|busy|try again|temporar|繁忙|稍后|稍後|忙碌|混み合|나중에",
    r"nicht verfügbar|überlastet|später|indisponible|plus tard|no disponible|más tarde|indisponível|mais tarde",
    r"più tardi|недоступ|позже",
)
POLICY = _any_of(
    r"policy|violat|inappropriate|prohibited|sensitive|moderation|违规|敏感|違規|不適切|ポリシー|정책",
    r"richtlinie|verstößt|politique|inapproprié|política|inapropiad|inadequad|norme|запрещ|наруша",
)
EMPTY = _any_of(r"\bempty\b|message is required|不能为空|不能為空")
MODEL = _any_of(
    r"(?:invalid|unknown|unsupported) model|model .{0,40}(?:not (?:found|available|supported|exist)|no longer)",
    r"(?:无效|未知|不支持).{0,6}模型|模型.{0,6}不存在",
)
