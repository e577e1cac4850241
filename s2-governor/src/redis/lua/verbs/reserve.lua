-- reserve: key, day (none), session; amount, ttl, what becomes of it, trace.
local function denies(account, amount)
  local limit = limit_of(account)
  if account.halted or account.exhausted == 1 then
    return 'halted'
  elseif account.spent + account.held + amount <= limit then
    return nil
  end
  return account.spent + amount <= limit and 'held' or 'spent'
end

function verbs.reserve(key, day, session, path)
  local amount, ttl, expiry, trace = tonumber(ARGV[12]), tonumber(ARGV[13]), tonumber(ARGV[14]), ARGV[15]
  local before = remembered_spend(key)
  if before then
    if before.reserved == 1 and before.amount == amount and before.session == session and before.expiry == expiry then
      return how_ended(before) and { 'ended', how_ended(before) } or { 'granted', before.day, before.till }
    end
    return describe(before)
  end
  local missing, was = 0, path[1].session
  path[1].session = 1
  for nth, account in ipairs(path) do
    missing = missing + (account.exists and 0 or 1)
    local reason = nth == 1 and is_frozen(path) and 'frozen' or denies(account, amount)
    if reason then
      local left = available(account)
      path[1].session = was
      return { 'denied', day, nth, left, account.presumed, reason }
    end
  end
  local over = book.open + 1 > S.open and { 'limit', 'open', book.open + 1 } or missing > 0 and
    book.accounts + missing > S.accounts and { 'limit', 'accounts', book.accounts + missing }
  if over then
    path[1].session = was
    return over
  end
  local spend = { key = key, state = HELD, expiry = expiry, reserved = 1, amount = amount, till = at_most(now + ttl, NEVER),
    ended = 0, day = day, session = session, trace = trace }
  note_spend('reserve', spend, ',"amount_nano_usd":' .. int(amount))
  move_all(path, amount, 0, 0)
  call('ZADD', P .. 'budget:due', spend.till, key)
  book.open, book.due = book.open + 1, at_most(book.due, spend.till)
  save_spend(spend)
  return { 'granted', day, spend.till }
end
