-- settle, release, extend: key, day, session of a reservation; its amount, epoch and sequence when it was granted; then what it
-- cost, nothing, or for how much longer it is to hold.

-- The reservation, or why there is none: it was forgotten, or the server has lost it.
local function reservation(key, day, session)
  local spend = remembered_spend(key)
  -- A reservation may know more than who has it.
  notice(tonumber(ARGV[13]), tonumber(ARGV[14]))
  if not spend then
    return nil, is_lost(tonumber(ARGV[13]), tonumber(ARGV[14])) and 'lost' or 'unknown'
  elseif spend.reserved ~= 1 or spend.amount ~= tonumber(ARGV[12]) or spend.session ~= session or spend.day ~= day then
    return nil, 'unknown'
  end
  return spend
end

function verbs.settle(key, day, session, path)
  local actual, spend, why = tonumber(ARGV[15]), reservation(key, day, session)
  if why == 'unknown' then
    return { 'unknown' }
  elseif why == 'lost' then
    -- What was granted before the server lost it was spent all the same.
    spend = { key = key, state = LAPSED, expiry = PRESUME, reserved = 1, amount = tonumber(ARGV[12]), till = now, ended = 0,
      day = day, session = session, trace = '' }
  elseif spend.state == SETTLED then
    local before, said = unpack_posted(spend)
    return before == actual and { 'posted', said } or { 'settled', before }
  end
  local amount = spend.amount
  note_spend('settle', spend, ',"actual_nano_usd":' .. int(actual) .. ',"reserved_nano_usd":' .. int(amount))
  if spend.state == HELD then
    move_all(path, -amount, actual, 0, actual > 0)
  elseif spend.state == PRESUMED then
    move_all(path, 0, actual - amount, -amount, actual > 0)
  else
    move_all(path, 0, actual, 0, actual > 0)
  end
  local said = posted(path)
  spend.posted = pack_posted(actual, said)
  end_spend(spend, SETTLED)
  return { 'posted', said }
end

local function release(spend, path)
  local amount = spend.amount
  note_spend('release', spend, ',"amount_nano_usd":' .. int(amount))
  if spend.state == HELD then
    move_all(path, -amount, 0, 0)
  else
    move_all(path, 0, -amount, -amount)
  end
  end_spend(spend, RELEASED)
end

function verbs.release(key, day, session, path)
  local spend, why = reservation(key, day, session)
  if why then
    return { why == 'lost' and 'ok' or 'unknown' }
  elseif spend.state == SETTLED then
    return { 'settled', (unpack_posted(spend)) }
  elseif spend.state == HELD or spend.state == PRESUMED then
    release(spend, path)
  end
  return { 'ok' }
end

-- cancel: key, day (none), session; amount. Whoever asked is gone: what was granted is released, and what comes too late is
-- over before it has begun.
function verbs.cancel(key, day, session)
  local spend = remembered_spend(key)
  if not spend then
    end_spend({ key = key, state = LAPSED, expiry = PRESUME, reserved = 1, amount = tonumber(ARGV[12]), till = now, ended = 0,
      day = day, session = session, trace = '' }, RELEASED)
  elseif spend.state == HELD then
    local path = path_of(spend.day, session)
    read_more({ path }, {})
    release(spend, path)
  end
  return { 'ok' }
end

function verbs.extend(key, day, session)
  local spend = reservation(key, day, session)
  if not spend then
    return { 'unknown' }
  elseif how_ended(spend) then
    return { 'ended', how_ended(spend) }
  end
  local till = at_most(now + tonumber(ARGV[15]), NEVER)
  if till > spend.till then
    spend.till = till
    call('ZADD', P .. 'budget:due', till, key)
    save_spend(spend)
    book.sequence, book.due, book.changed = book.sequence + 1, at_most(book.due, till), true
  end
  return { 'ok', spend.till }
end
