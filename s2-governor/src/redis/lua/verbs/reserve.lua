-- reserve: key, day (none), session; amount, ttl, what becomes of it, trace.
local function denies(account, amount)
  local limit, rule = limit_of(account), rules[account.swarm]
  if rule.halted or account.exhausted == 1 then
    return 'halted'
  elseif account.spent + account.held + amount <= limit then
    return nil
  end
  return account.spent + amount <= limit and 'held' or 'spent'
end

function verbs.reserve(key, day, session)
  local amount, ttl, expiry, trace = tonumber(ARGV[12]), tonumber(ARGV[13]), tonumber(ARGV[14]), ARGV[15]
  local before = remembered_spend(key)
  if before then
    if before.reserved == 1 and before.amount == amount and before.session == session and before.expiry == expiry then
      return how_ended(before) and { 'ended', how_ended(before) } or { 'granted', before.day, before.till }
    end
    return describe(before)
  end
  local path, missing = path_of(session), 0
  for nth, swarm in ipairs(path) do
    local account = accounts[account_name(day, swarm)]
    missing = missing + (account.exists and 0 or 1)
    local was = account.session
    if nth == 1 then
      account.session = 1
    end
    local reason = nth == 1 and is_frozen(path) and 'frozen' or denies(account, amount)
    if reason then
      local answer = { 'denied', day, nth, available(account), account.presumed, reason }
      account.session = was
      return answer
    end
  end
  if book.open + 1 > S.open then
    return { 'limit', 'open', book.open + 1 }
  elseif missing > 0 and book.accounts + missing > S.accounts then
    return { 'limit', 'accounts', book.accounts + missing }
  end
  local spend = { key = key, state = HELD, expiry = expiry, reserved = 1, amount = amount, till = at_most(now + ttl, NEVER),
    ended = 0, day = day, session = session, trace = trace }
  note_spend('reserve', spend, ',"amount_nano_usd":' .. int(amount))
  move_all(day, session, amount, 0, 0)
  call('ZADD', P .. 'budget:due', int(spend.till), key)
  book.open, book.due = book.open + 1, at_most(book.due, spend.till)
  save_spend(spend)
  return { 'granted', day, spend.till }
end
