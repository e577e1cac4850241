-- What a spend does to the accounts of a path.

local function limit_of(account)
  return account.limit or (account.session == 1 and S.session_limit or NEVER)
end

-- Sums above 2^53 − 1 lose their last digits, but stay above.
local function available(account)
  return at_least(limit_of(account) - at_most(account.spent + account.held, NEVER), 0)
end

local function level_of(account)
  local limit = limit_of(account)
  local rest = limit % 100
  -- The limit less the percentage, rounded up: no product above 2^53.
  local warned = (limit - rest) / 100 * S.warn_percent + math.ceil(rest * S.warn_percent / 100)
  return account.spent >= limit and EXHAUSTED or account.spent >= warned and WARNED or WITHIN
end

local function date(day)
  local z = day + 719468
  local era = math.floor(z / 146097)
  local doe = z - era * 146097
  local yoe = math.floor((doe - math.floor(doe / 1460) + math.floor(doe / 36524) - math.floor(doe / 146096)) / 365)
  local doy = doe - (365 * yoe + math.floor(yoe / 4) - math.floor(yoe / 100))
  local mp = math.floor((5 * doy + 2) / 153)
  local month = mp < 10 and mp + 3 or mp - 9
  return string.format('%04d-%02d-%02d', yoe + era * 400 + (month <= 2 and 1 or 0), month,
    doy - math.floor((153 * mp + 2) / 5) + 1)
end

local function usd(nanos)
  local rest = nanos % 1000000000
  local digits = string.format('%09d', rest)
  return '$' .. int((nanos - rest) / 1000000000) .. '.' .. string.sub(digits, 1, 2) ..
    string.match(string.sub(digits, 3), '^(.-)0*$')
end

-- Says so if an account has reached a level that was not announced.
local function announce_level(account, level)
  if level <= account.announced then
    return
  end
  account.announced = level
  local limit, day = limit_of(account), date(account.day)
  journal { component = 'budget', operation = 'level', subject = account.swarm, params = { 'day', day, 'percent',
    level == EXHAUSTED and 100 or S.warn_percent, 'spent_nano_usd', account.spent, 'limit_nano_usd', limit },
    severity = level == EXHAUSTED and 'HIGH' or 'MEDIUM' }
  if level == EXHAUSTED then
    account.exhausted = 1
    escalate { key = 'budget:' .. day .. ':' .. string.sub(account.swarm, -230), reason = 'budget_exceeded',
      payload = '{"account":"' .. account.swarm .. '","day":"' .. day .. '","cost_incurred":"' .. usd(account.spent) ..
      '","budget_original":"' .. usd(limit) .. '"}', severity = 'HIGH' }
  end
end

-- Moves the accounts of a path alike. Those that are forgotten stay so.
local function move_all(path, held, spent, presumed, costs)
  book.sequence, book.changed = book.sequence + 1, true
  if path.day < oldest_day() then
    return
  end
  path[1].session = 1
  for _, account in ipairs(path) do
    local before = level_of(account)
    account.held = at_least(at_most(account.held + held, NEVER), 0)
    account.spent = at_least(at_most(account.spent + spent, NEVER), 0)
    account.presumed = at_least(at_most(account.presumed + presumed, NEVER), 0)
    local level = level_of(account)
    if level < EXHAUSTED then
      account.exhausted = 0
    elseif before < EXHAUSTED then
      account.exhausted = 1
    end
    if costs then
      announce_level(account, level)
    end
    save_account(account)
  end
end

-- What a cost has done: what remains, the highest level on the way up, and whose it is.
local function posted(path)
  local remaining, level, at = NEVER, -1, 1
  if not path[1].exists then
    path[1].session = 1
  end
  for nth, account in ipairs(path) do
    local reached = level_of(account)
    remaining = at_most(remaining, available(account))
    if reached > level then
      level, at = reached, nth
    end
  end
  return { remaining, level, at, path[at].spent, limit_of(path[at]) }
end

local function pack_posted(actual, said)
  return struct.pack(POSTED, actual, said[1], said[2], said[3], said[4], said[5])
end

local function unpack_posted(spend)
  local actual, remaining, level, at, spent, limit = struct.unpack(POSTED, spend.posted)
  return actual, { remaining, level, at, spent, limit }
end

-- Keeps what a spend has done in the journal: JSON by hand, since it is what happens most.
local function note_spend(operation, spend, params, severity)
  local key = string.find(spend.key, '^[%w._/:-]+$') and '"' .. spend.key .. '"' or cjson.encode(spend.key)
  record('{"component":"budget","operation":"' .. operation .. '","subject":"' .. spend.session .. '","params":{"id":' ..
    key .. params .. '},"severity":"' .. (severity or 'INFO') .. '"' ..
    (spend.trace ~= '' and ',"trace":"' .. spend.trace .. '"' or '') .. '}')
end

local function read_spends(keys)
  local unknown = {}
  for _, key in ipairs(keys) do
    if spends[key] == nil then
      unknown[#unknown + 1] = key
    end
  end
  read_more({}, unknown)
end

-- Forgets spends that ended too long ago, or are too many.
local function forget_spends()
  local function is_old(entry)
    return tonumber(string.match(entry, '^%d+')) <= now - S.window
  end
  local first = call('LINDEX', P .. 'budget:ended', 0)
  if not first or book.ended <= S.remembered and not is_old(first) then
    return
  end
  local old = call('LRANGE', P .. 'budget:ended', 0, 499)
  local keys, times = {}, {}
  for nth, entry in ipairs(old) do
    local at, key = string.match(entry, '^(%d+) (.*)$')
    if not (is_old(entry) or book.ended - nth + 1 > S.remembered) then
      break
    end
    keys[nth], times[nth] = key, tonumber(at)
  end
  read_spends(keys)
  local gone = {}
  for nth, key in ipairs(keys) do
    -- The key may have been used anew.
    if spends[key] and spends[key].ended == times[nth] then
      gone[#gone + 1], spends[key] = 's' .. key, false
    end
  end
  -- What was to be written must not come back.
  write_fields()
  call('LPOP', P .. 'budget:ended', #keys)
  book.ended = at_least(book.ended - #keys, 0)
  if #gone > 0 then
    call('HDEL', P .. 'budget', unpack(gone))
  end
end

-- A spend is over. What is presumed can still be corrected, and so is not.
local function end_spend(spend, state)
  if spend.state == HELD or spend.state == PRESUMED then
    call('ZREM', P .. 'budget:due', spend.key)
    book.open = at_least(book.open - 1, 0)
  end
  spend.state = state
  if spend.ended > 0 then
    return save_spend(spend)
  end
  spend.ended = now
  save_spend(spend)
  call('RPUSH', P .. 'budget:ended', int(now) .. ' ' .. spend.key)
  book.ended, book.ends = book.ended + 1, book.ends + 1
  if book.ends % 64 == 0 then
    forget_spends()
  end
end

-- A reservation is overdue: it expires, or what was presumed of it is final.
local function expire(spend)
  if spend.state == PRESUMED then
    write_fields()
    call('HDEL', P .. 'budget', 's' .. spend.key)
    call('ZREM', P .. 'budget:due', spend.key)
    book.open, book.changed, spends[spend.key] = at_least(book.open - 1, 0), true, false
    return
  end
  local presumed, amount = spend.expiry == PRESUME, spend.amount
  note_spend('expire', spend, ',"amount_nano_usd":' .. int(amount) .. ',"presumed":' .. (presumed and 'true' or 'false'),
    presumed and 'MEDIUM')
  local path = path_of(spend.day, spend.session)
  if not presumed then
    move_all(path, -amount, 0, 0)
    return end_spend(spend, LAPSED)
  end
  move_all(path, -amount, amount, amount, amount > 0)
  spend.state, spend.till = PRESUMED, at_most(now + S.window, NEVER)
  call('ZADD', P .. 'budget:due', spend.till, spend.key)
  save_spend(spend)
end

-- Ends the reservations that are overdue, so many at a time. Answers whether that was all.
local function expire_due()
  if book.due > now then
    return true
  end
  local keys = call('ZRANGEBYSCORE', P .. 'budget:due', '-inf', int(now), 'LIMIT', 0, 100)
  local wanted = {}
  read_spends(keys)
  for _, key in ipairs(keys) do
    local spend = spends[key]
    if spend then
      wanted[#wanted + 1] = path_of(spend.day, spend.session)
    end
  end
  read_more(wanted, {})
  for _, key in ipairs(keys) do
    if spends[key] then
      expire(spends[key])
    else
      call('ZREM', P .. 'budget:due', key)
    end
  end
  local next_due = call('ZRANGE', P .. 'budget:due', 0, 0, 'WITHSCORES')
  book.due, book.changed = tonumber(next_due[2] or NEVER), true
  return book.due > now
end

-- Forgets the accounts of days that are too old, so many at a time. Answers whether that was all.
local function forget_days()
  local oldest = oldest_day()
  if book.oldest == oldest then
    return true
  end
  local old = call('ZRANGEBYLEX', P .. 'budget:accounts', '-', string.format('(%06d ', oldest), 'LIMIT', 0, 500)
  local names = {}
  for nth, member in ipairs(old) do
    local day, swarm = string.match(member, '^(%d+) (.*)$')
    local account = account_of(tonumber(day), swarm)
    unpack_account(account, false)
    names[nth] = account.name
  end
  if #names > 0 then
    call('HDEL', P .. 'budget', unpack(names))
    call('ZREM', P .. 'budget:accounts', unpack(old))
    book.accounts = at_least(book.accounts - #names, 0)
  end
  book.changed = true
  if #old == 500 then
    return false
  end
  book.oldest = oldest
  return true
end

-- The spend under a key, unless it counts as forgotten.
local function remembered_spend(key)
  local spend = spends[key]
  return spend and (spend.ended == 0 or spend.ended > now - S.window) and spend or nil
end
