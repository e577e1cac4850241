-- tasks_why <task>

-- How many tasks are counted that come before another, and how many are named that one waits for.
local MOST_AHEAD, MOST_NAMED = 1000, 20

local function waits_for(rec)
  local waits, named_ = {}, {}
  for nth, edge in ipairs(waits_of(rec)) do
    waits[nth] = edge[1]
  end
  table.sort(waits)
  for nth = 1, at_most(#waits, MOST_NAMED) do
    local other = find_task(waits[nth])
    if other then
      named_[#named_ + 1], named_[#named_ + 2] = waits[nth], STATES[other.state]
    end
  end
  return named_, #waits
end

-- The first task that another waits for, what that one waits for, and so on.
local function chain_of(rec)
  local chain = {}
  while #chain < MOST_NAMED do
    local first
    for _, edge in ipairs(waits_of(rec)) do
      first = at_most(first or NEVER, edge[1])
    end
    rec = first and find_task(first)
    if not rec then
      break
    end
    chain[#chain + 1] = { rec.id, STATES[rec.state], session_of(rec) }
  end
  return chain
end

local function ahead_of(key, rec)
  return at_most(call('ZRANK', key, place_of(rec)[2]) or 0, MOST_AHEAD)
end

-- The session that comes closest to what a task requires, and what it lacks.
local function closest(requires)
  local lacks, least = {}, nil
  for k, kind in pairs(Q.kinds) do
    if is_dedicated(requires) or not is_dedicated(kind.offers) then
      lacks[k] = missing(kind.offers, requires)
      least = at_most(least or NEVER, #lacks[k])
    end
  end
  local after = '-'
  while true do
    local names = call('ZRANGEBYLEX', P .. 'sessions', after, '+', 'LIMIT', 0, 100)
    for _, name in ipairs(names) do
      local session = named(name)
      if session and lacks[session.kind] and #lacks[session.kind] == least then
        return name, lacks[session.kind]
      end
      after = '(' .. name
    end
    if #names == 0 then
      return nil
    end
  end
end

-- When the first of those who could take a task is offered it again, if all of them have refused it.
local function all_refused(rec, class)
  local after, soonest_ = '-', NEVER
  while true do
    local names = call('ZRANGEBYLEX', P .. 'sessions', after, '+', 'LIMIT', 0, 100)
    for _, name in ipairs(names) do
      local session = named(name)
      if session and may(Q.kinds[session.kind], class.id) then
        local till = refused_until(session, rec)
        if till == 0 then
          return nil
        end
        soonest_ = at_most(soonest_, till)
      end
      after = '(' .. name
    end
    if #names == 0 then
      return soonest_ < NEVER and soonest_ or nil
    end
  end
end

local function why_ready(rec)
  local class = Q.classes[rec.class]
  if rec.assignee ~= '' then
    local session = named(rec.assignee)
    if not session then
      return { 'absent', rec.assignee }
    end
    local till = refused_until(session, rec)
    if till > 0 then
      return { 'refused', till }
    end
    return { 'assigned', rec.assignee, ahead_of(own_key('ready', rec.class, rec.assignee), rec) }
  end
  local eligible = 0
  for _, kind in pairs(class.kinds) do
    eligible = eligible + kind.sessions
  end
  if eligible == 0 then
    local name, lacks = closest(class.requires)
    return name and { 'not_capable', name, lacks } or { 'no_session' }
  end
  local till = all_refused(rec, class)
  if till then
    return { 'refused', till }
  end
  return { 'queued', ahead_of(class.key, rec), eligible }
end

local function why(rec)
  local state = rec.state
  if state == WAITING or state == BLOCKED then
    local wait, chain, named_, count = wait_of(rec), chain_of(rec), waits_for(rec)
    if state == WAITING then
      return { 'waiting', named_, count, chain, wait and rec.holder or '' }
    end
    if wait.cycle then
      return { 'deadlocked', rec.holder, wait.reason, wait.since, wait.cycle }
    end
    return { 'blocked', rec.holder, wait.reason, wait.requires, named_, count, wait.any and 1 or 0, wait.since, chain }
  elseif state == DELAYED then
    local history = history_of(rec)
    return { 'delayed', rec.till, rec.failures, history[#history] or false }
  elseif state == READY then
    return why_ready(rec)
  elseif state == RESUMABLE then
    local released = deadlock.released(rec)
    return { 'resumable', rec.holder, rec.till, released and released[1] == 1 and { released[2], released[3] } or false }
  elseif state == CLAIMED then
    local how = find_session(rec.number) and 'running' or 'lost'
    return { how, rec.number, rec.holder, rec.token, rec.started, rec.till, rec.progressed }
  elseif state == ON_HOLD then
    return { 'on_hold', rec.till }
  end
  return describe_outcome(rec)
end

local function verb()
  open({ name_of(ARGV[5]) })
  begin_queues()
  local rec = find_named(name_of(ARGV[5]))
  return rec and { 'ok', why(rec) } or { 'unknown_task', tonumber(ARGV[5]) }
end
