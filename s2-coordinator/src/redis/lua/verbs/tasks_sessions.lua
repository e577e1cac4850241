-- tasks_sessions <after> <limit>: number, name, offers, how much it has, in its own queue, and blocked, and what it does.

-- What a session does, as far as the first hundred tasks that it has blocked tell.
local function state_of(session)
  if #session.held > 0 then
    return 'working'
  elseif session.blocked == 0 then
    return 'idle'
  end
  for _, name16 in ipairs(call('ZRANGE', P .. 'blocked:' .. int(session.n), 0, 99)) do
    local rec = find_named(name16)
    if rec and #waits_of(rec) > 0 then
      return 'waiting_on'
    end
  end
  return 'blocked'
end

local function verb()
  open()
  begin_queues()
  local after, infos, fields = ARGV[5], {}, {}
  local names = call('ZRANGEBYLEX', P .. 'sessions', after == '' and '-' or '(' .. after, '+', 'LIMIT', 0, tonumber(ARGV[6]))
  for nth, name in ipairs(names) do
    fields[nth] = 'name:' .. name
  end
  fetch(fields)
  for nth, name in ipairs(names) do
    fields[nth] = 'session:' .. int(number_of(name))
  end
  fetch(fields)
  for nth, name in ipairs(names) do
    local session = named(name)
    infos[#infos + 1] = session and {
      session.n, name, Q.kinds[session.kind].text, #session.held, T.own > 0 and own_length(name) or 0, session.blocked,
      state_of(session),
    } or nil
  end
  return { 'ok', infos }
end
