-- Handing tasks out.

-- What the other parts use of it.
local describe_grant, renew, grant, claim_tasks, hand_out

do

-- A task in the hands of a session, as it is told: number, terms, text, what it was to come after, attempt, token, deadline,
-- until when at the longest or 0, what it has waited for, and, if it goes on without that, how long it has waited and the ring.
function describe_grant(rec)
  local timeout, released = terms_of(rec).timeout, deadlock.released(rec)
  return {
    rec.id, rec.terms, read(rec.name16 .. 'd') or '', has(rec, FLAG.after) and read(rec.name16 .. 'f') or '',
    rec.failures + 1, rec.token, rec.till, timeout > 0 and rec.started + timeout or 0,
    has(rec, FLAG.answers) and read(rec.name16 .. 'a') or '',
    released and released[1] == 1 and { released[2], released[3] } or false,
  }
end

-- When a lease ends that is granted or renewed now.
local function lease_end(rec)
  local terms = terms_of(rec)
  local ends = at_most(at_most(now + terms.lease, rec.progressed + C.progress), NEVER)
  return terms.timeout > 0 and at_most(ends, rec.started + terms.timeout) or ends
end

-- Moves the end of a claim to one lease from now. Answers with it.
function renew(rec)
  rec.till = lease_end(rec)
  arm_timer(DUE.lease .. rec.name16, rec.till)
  touch(rec)
  return rec.till
end

-- Gives a task to a session, which perhaps resumes a claim that was ended by blocking.
function grant(rec, session, resumes)
  local token = number()
  note('claimed', rec, '"session":"' .. session.name .. '","token":' .. int(token) .. ',"attempt":' ..
    int(rec.failures + 1))
  unindex(rec)
  if has(rec, FLAG.blocker) then
    drop(rec.name16 .. 'b')
    without(rec, FLAG.blocker)
  end
  progress.moved()
  without(rec, FLAG.awaited)
  with(rec, FLAG.had)
  rec.number, rec.holder, rec.token, rec.resumes, rec.started = session.n, session.name, token, resumes or 0, now
  rec.progressed = now
  rec.till, rec.state = lease_end(rec), CLAIMED
  touch(rec)
  index(rec)
  return rec
end

-- Reads what the first tasks of a class say, as many as are wanted by this claim and those after it, unless the first was read.
local function read_ahead(class, place, wanted)
  local page, first = class.page, place[3]
  if fetched[first] ~= nil or pending[first] ~= nil then
    return
  end
  local fields = { first, first .. 'd' }
  for nth = 2, at_most(wanted + to_ask, #page) do
    fields[#fields + 1], fields[#fields + 2] = page[nth][3], page[nth][3] .. 'd'
  end
  fetch(fields)
end

local function never()
  return false
end

-- What a session does next: what it may resume and what is in its own queue, then what is in any queue, and if it has nothing
-- at all, what it can steal.
local function next_for(session, wanted)
  local kind, skip = Q.kinds[session.kind], skips(session)
  local best
  if session.resumable > 0 then
    best = first_of(P .. 'resumable:' .. int(session.n), false, function(name16)
      local rec = find_named(name16)
      return not rec or has(rec, FLAG.awaited)
    end)
  end
  if T.own > 0 then
    local own = own_first(session.name, function(c) return may(kind, c) end, skip or never)
    if own and (not best or before(own, best)) then
      best = own
    end
  end
  if best then
    return find_named(best[3])
  end
  local place, class = first_ready(kind, skip)
  while place do
    read_ahead(class, place, wanted)
    local rec = find_named(place[3])
    if rec and rec.state == READY then
      rec.place = place
      return rec
    end
    -- Somebody else has had his hands in it.
    remove_ready(class.id, place)
    place, class = first_ready(kind, skip)
  end
  if #session.held > 0 then
    return nil
  end
  local name16, from = theft(session, skip or never)
  local rec = name16 and find_named(name16)
  if rec then
    note('stolen', rec, '"from":"' .. from .. '","to":"' .. session.name .. '"')
    move(rec, READY, function() rec.assignee = '' end)
  end
  return rec
end

-- What a session can have at once.
local function take_tasks(session, max)
  local granted, bytes = {}, 0
  local room = at_most(max, C.leases - #session.held)
  while #granted < room and bytes < STEP_BYTES do
    local rec = next_for(session, room - #granted)
    if not rec then
      break
    end
    granted[#granted + 1], bytes = grant(rec, session), bytes + terms_of(rec).bytes
  end
  return granted
end

-- What a claim that is repeated was granted the first time, as far as it is still held; nothing if it is new.
local function repeated(session, request)
  local leases = granted_before(session, request)
  if not leases then
    return nil
  end
  local grants = {}
  for place = 1, #leases, 14 do
    local id, token = unpack_bytes('>I7I7', leases, place)
    local rec = find_task(id)
    if rec and holds(rec, token) then
      grants[#grants + 1] = describe_grant(rec)
    end
  end
  return grants
end

-- What was claimed, of the numbers and the name of a session, a request and how many at most; or nothing and why not.
function claim_tasks(n, name, request, max)
  local session, wrong = check_session(n, name)
  if not session then
    return nil, wrong
  end
  local grants = repeated(session, request)
  if grants then
    return grants, session
  elseif #session.held + 1 > C.leases then
    stop_waiting_to_claim(session, request)
    return nil, { 'limit', 'leases', #session.held + 1 }
  end
  local granted = take_tasks(session, max)
  if #granted > 0 then
    remember_request(session, request, granted)
    stop_waiting_to_claim(session, request)
  end
  grants = {}
  for nth, rec in ipairs(granted) do
    grants[nth], handed = describe_grant(rec), handed + terms_of(rec).bytes
  end
  return #grants > 0 and grants, session
end

-- About the most that is pushed to who waits; more is fetched.
local PUSH_BYTES = 65536

-- Hands out to a claim that waits what it can have. One of which nobody hears ends. Answers whether it waits no more.
local function serve_claim(session, claim)
  local _, request, max, wait, channel = unpack(claim)
  if call('PUBSUB', 'NUMSUB', P .. 'p:' .. channel)[2] == 0 then
    stop_waiting_to_claim(session, request)
    return true
  elseif #session.held + 1 > C.leases then
    stop_waiting_to_claim(session, request)
    push(channel, { wait, 1 })
    return true
  end
  local granted = take_tasks(session, max)
  if #granted == 0 then
    return false
  end
  remember_request(session, request, granted)
  stop_waiting_to_claim(session, request)
  local grants, bytes = {}, 0
  for nth, rec in ipairs(granted) do
    grants[nth] = describe_grant(rec)
    bytes = bytes + #grants[nth][3]
  end
  push(channel, { wait, 1, bytes <= PUSH_BYTES and { grants, at_most(M.due, soonest) } or nil })
  return true
end

-- The claim that waits under a ticket.
local function claim_of(session, ticket)
  for _, claim in ipairs(session.waits) do
    if claim[1] == ticket then
      return claim
    end
  end
end

-- The longest waiter among kinds that qualifies: session and claim.
local function longest_waiter(kinds, qualifies)
  local best
  for _, kind in pairs(kinds) do
    local first = kind.claims > 0 and first_in_line(kind, qualifies)
    if first and (not best or first[1] < best[1]) then
      best = first
    end
  end
  if best then
    local session = find_session(best[2])
    return session, session and claim_of(session, best[1]), best
  end
end

-- Hands out what has become ready to those who wait for it, the longest waiter first.
local function hand_out_what_is_fresh()
  if T.waiting == 0 then
    return
  end
  for _, class in ipairs(fresh) do
    class.fresh = nil
    local tried = {}
    local function qualifies(waiter)
      if tried[waiter[1]] then
        return false
      end
      local session = find_session(waiter[2])
      local skip = session and skips(session)
      return session and (not skip or search(class, function(name16) return not skip(name16) end))
    end
    while Q.classes[class.id] == class and T.waiting > 0 and head_of(class) do
      local session, claim, waiter = longest_waiter(class.kinds, qualifies)
      if not waiter then
        break
      end
      tried[waiter[1]] = true
      if claim then
        serve_claim(session, claim)
      end
    end
  end
  for _, n in ipairs(nudged) do
    local session = T.waiting > 0 and find_session(n)
    local claim = session and session.waits[1]
    while claim and serve_claim(session, claim) do
      claim = session.waits[1]
    end
  end
  if stealable then
    -- A kind of which one that refuses nothing can steal nothing is passed over.
    local tried, passed = {}, {}
    local function is_idle(waiter)
      local session = not tried[waiter[1]] and find_session(waiter[2])
      return session and not passed[session.kind] and #session.held == 0
    end
    while T.waiting > 0 and is_any_above() do
      local session, claim, waiter = longest_waiter(Q.kinds, is_idle)
      if not waiter then
        break
      end
      tried[waiter[1]] = true
      if not (claim and serve_claim(session, claim)) and session.refused == 0 then
        passed[session.kind] = true
      end
    end
  end
end

function hand_out()
  hand_out_what_is_fresh()
  -- What was handed out by stealing came by, and is gone.
  for _, class in ipairs(fresh) do
    class.fresh = nil
  end
  if #fresh > 0 then
    fresh = {}
  end
  if #nudged > 0 then
    nudged = {}
  end
  stealable = false
end

end
